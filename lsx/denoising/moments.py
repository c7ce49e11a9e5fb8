"""The U-Net's conditioning from VAE moments that were kept: what the VAE encoder's graph does after its network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import LATENT_SCALE

__all__ = ["conditioning_of"]


def conditioning_of(
    moments: NDArray[np.float32], noise: NDArray[np.float32], mask: NDArray[np.float32]
) -> NDArray[np.float32]:
    """float32 [1, 9, F, h, w]: the mask, masked latents and reference latents of a chunk.

    moments : float32 [F, 2, 2, 4, h, w]: masked and reference face, mean and deviation of each. noise : float32
    [2, F, 4, h, w]. mask : float32 [h, w]. In float32 and in the graph's order, so that its numbers are the graph's.
    """
    mean, deviation = moments[:, :, 0], moments[:, :, 1]
    latents = (mean + deviation * noise.transpose(1, 0, 2, 3, 4)) * np.float32(LATENT_SCALE)
    kept = np.broadcast_to(mask, (len(moments), 1, *mask.shape))
    stacked = np.concatenate([kept, latents[:, 0], latents[:, 1]], axis=1)
    return np.ascontiguousarray(stacked.transpose(1, 0, 2, 3)[None])
