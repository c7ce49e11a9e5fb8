"""Sixteen bits to eight by ordered dithering, so that a camera's smooth gradients stay smooth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame

__all__ = ["dithered"]

_OF_ONE_LEVEL = 256  # what FFmpeg scales by when it converts to 16 bits of RGB: white is 65280


def _bayer(size: int) -> NDArray[np.int64]:
    """0..size^2-1, each once, so that every smaller square holds evenly spread values. size : a power of two."""
    if size == 1:
        return np.zeros((1, 1), np.int64)
    quarter = 4 * _bayer(size // 2)
    return np.block([[quarter, quarter + 2], [quarter + 3, quarter + 1]])


_THRESHOLDS = ((2 * _bayer(8) + 1) * _OF_ONE_LEVEL // 128).astype(np.uint16)


def dithered(picture: NDArray[np.uint16]) -> Frame:
    """Sixteen bits to eight, uint16 (white is 65280) to uint8 [height, width, channels], by ordered dithering.

    Rounding would make steps of a smooth gradient that a camera stored in ten bits. With these thresholds the mean
    over every 8 x 8 pixels is the exact one, to 1/128 of a level, and a still picture stays still.
    """
    height, width = picture.shape[:2]
    thresholds = np.tile(_THRESHOLDS, (-(-height // 8), -(-width // 8)))[:height, :width, None]
    result: Frame = ((np.minimum(picture, 255 * _OF_ONE_LEVEL) + thresholds) >> 8).astype(np.uint8)
    return result
