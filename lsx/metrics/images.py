"""Figures by which pictures are compared. NaN never passes: it makes every figure NaN."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["levels_of", "psnr", "ssim_map", "temporal_difference"]

Picture = NDArray[Any]


def levels_of(pixels: Picture) -> NDArray[np.uint8]:
    """Computed levels of any float dtype as a picture holds them, uint8 of the same shape; NaN becomes 0."""
    return np.asarray(np.clip(np.nan_to_num(pixels).round(), 0, 255), dtype=np.uint8)


def psnr(result: Picture, expected: Picture, where: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio in dB of pictures in levels 0..255 [..., H, W, 3], over the pixels `where` [H, W]."""
    error = (result.astype(np.float64) - expected.astype(np.float64))[..., where, :]
    square = float((error**2).mean())
    return float("inf") if square == 0 else float(10 * np.log10(255**2 / square))


def ssim_map(result: Picture, expected: Picture) -> NDArray[np.float64]:
    """Structural similarity at each pixel of two pictures in levels 0..255 [H, W, 3]: float64 [H, W].

    Gaussian windows of 11 pixels and sigma 1.5, K1 0.01, K2 0.03, mean over the channels.
    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.
    """
    a, b = result.astype(np.float64), expected.astype(np.float64)

    def local(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT))

    mean_a, mean_b = local(a), local(b)
    variance_a, variance_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return np.asarray((above / below).mean(axis=2))


def temporal_difference(result: Picture, expected: Picture, where: NDArray[np.bool_]) -> float:
    """Mean absolute difference, in levels, of how pictures [n, H, W, 3] change from one to the next, over `where`."""
    if len(result) < 2:
        return 0.0
    changes = [np.diff(x.astype(np.float64), axis=0)[:, where] for x in (result, expected)]
    return float(np.abs(changes[0] - changes[1]).mean())
