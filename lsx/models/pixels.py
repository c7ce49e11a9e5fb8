"""Faces as networks take them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["pixels_of"]


def pixels_of(faces: NDArray[np.uint8]) -> Tensor:
    """Levels uint8 [n, H, W, 3] to float32 [n, 3, H, W] in -1..1, contiguous.

    PyTorch's CPU path for frames that are channels-last in memory is less exact.
    """
    return torch.from_numpy(np.ascontiguousarray(faces.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1)
