"""The soft mask that blends a face into its frame, in the original's definition and in closed form.

The original warps a block of ones home, takes the 2 x 2 minimum over (y-1..y, x-1..x) ("hard"), erodes by 2w x 2w
("core"), w a twentieth of the root of the hard mask's area, and blurs with a Gaussian of 2w + 1. On 1080p that is
most of the time of pasting. Away from the frame's border the mask is a product of two profiles, one along each edge
of the crop: erosion by a square takes the minimum of a linear ramp, which lies in a corner of the square, and the
blur of a straight edge depends on the distance to it alone. So the profiles are computed once, and their product is
warped home instead of the ones. Against the direct way the mask differs by at most about 1e-3, at the crop's corners.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["blur_kernel", "direct_mask", "edge_width", "profile_table"]

Affine = NDArray[np.float64]
Image = NDArray[np.float32]


def blur_kernel(width: int) -> NDArray[np.float64]:
    """The 2w + 1 weights of the original's Gaussian, float64."""
    size = 2 * width + 1
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    kernel = np.exp(-0.5 * (np.arange(-width, width + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum())


def direct_mask(ones: Image, width: int | None = None) -> tuple[Image, Image]:
    """(hard, soft) of the warped ones [h, w], as the original does it; beyond the border nothing erodes, blur reflects.

    `ones` must reach to the frame's border or to where it is 0. `width` is w, by default that of `ones` itself.
    """
    hard: Any = cv2.erode(ones, np.ones((2, 2), np.uint8))
    if width is None:
        width = int(math.sqrt(float(hard.sum(dtype=np.float64)))) // 20
    if width == 0:
        return hard, hard
    core = cv2.erode(hard, np.ones((2 * width, 2 * width), np.uint8))
    kernel = blur_kernel(width)
    soft: Any = cv2.sepFilter2D(core, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return hard, soft


def edge_width(affine: Affine, size: tuple[int, int], region: tuple[int, int]) -> int | None:
    """The original's w for a crop of `size` in a region of a frame, (w, h) each; None where it must be counted.

    The area is that of the hard mask's half-height outline, cut at the region. `affine` : region to crop.
    """
    zero = np.array([-1.0, 0.0])
    outline = []
    for row, length in zip(affine, size, strict=True):
        low, high = _extremes(row[0] * zero, row[1] * zero)
        outline.append((-low - 0.5, length - high - 0.5))
    (u0, u1), (v0, v1) = outline
    if u1 <= u0 or v1 <= v0:
        return None
    corners = np.array([[u0, v0, 1], [u1, v0, 1], [u1, v1, 1], [u0, v1, 1]])
    quad = corners @ cv2.invertAffineTransform(affine).T
    x, y = region
    frame = np.array([[0, 0], [x, 0], [x, y], [0, y]]) - 0.5
    area, _ = cv2.intersectConvexConvex(quad.astype(np.float32), frame.astype(np.float32))
    root = math.sqrt(max(area, 0.0))
    # The count differs from the area by a few hundredths of a pixel's edge; w changes at multiples of 20.
    if root < 20 or abs(root - round(root / 20) * 20) < 0.1:
        return None
    return int(root) // 20


def profile_table(affine: Affine, size: tuple[int, int], width: int) -> tuple[Image, Affine] | None:
    """The soft mask sampled in crop coordinates: (table, affine from frame to table).

    Returns None where the crop is too small for its edges to be apart.
    """
    a, b = affine[0, 0], affine[0, 1]
    # Linear interpolation in the table errs by step**2 / 8 of the curvature, 0.242 / sigma**2 at most: 3e-4 here.
    step = math.hypot(a, b) * min(1.0, 0.1 * (0.3 * width + 0.5))
    weights = blur_kernel(width)
    steps = np.arange(-width, width + 1)
    offsets = (a * steps[:, None] + b * steps[None]).ravel()
    chances = (weights[:, None] * weights[None]).ravel()
    if min(size) < 4 * (width + 1) * (abs(a) + abs(b)):
        return None
    ramp = _Ramp(offsets, chances)
    # The 2 x 2 minimum and the erosion together look over dx, dy in -w-1 .. w-1.
    corners = np.array([-width - 1, width - 1])
    low_u, high_u = _extremes(affine[0, 0] * corners, affine[0, 1] * corners)
    low_v, high_v = _extremes(affine[1, 0] * corners, affine[1, 1] * corners)
    across = _lattice(affine[0, 2], step, size[0])
    down = _lattice(affine[1, 2], step, size[1])
    row = ramp(across + low_u + 1) + ramp(size[0] - across - high_u) - 1
    column = ramp(down + low_v + 1) + ramp(size[1] - down - high_v) - 1
    table = np.multiply.outer(np.clip(column, 0, 1), np.clip(row, 0, 1)).astype(np.float32)
    to_table = affine.copy()
    to_table[:, 2] -= (across[0], down[0])
    return table, to_table / step


class _Ramp:
    """E[clip(t + s, 0, 1)] for the discrete distribution of s: an edge one crop pixel wide, blurred. Exact in t."""

    def __init__(self, offsets: NDArray[np.float64], chances: NDArray[np.float64]) -> None:
        order = np.argsort(offsets)
        self._offsets = offsets[order]
        # Of all s above the k-th: their total chance, and their first moment.
        self._mass = np.append(np.cumsum(chances[order][::-1])[::-1], 0.0)
        self._moment = np.append(np.cumsum((chances * offsets)[order][::-1])[::-1], 0.0)

    def _positive_part(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        k = np.searchsorted(self._offsets, -t, side="right")
        return np.asarray(t * self._mass[k] + self._moment[k])

    def __call__(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._positive_part(t) - self._positive_part(t - 1)


def _extremes(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    return float(x.min() + y.min()), float(x.max() + y.max())


def _lattice(phase: float, step: float, length: int) -> NDArray[np.float64]:
    """Samples from -2 to length + 1 crop pixels at `step`, through `phase`: the frame's own lattice if not rotated."""
    first = math.floor((-2 - phase) / step)
    count = math.ceil((length + 3) / step) + 2
    return np.asarray(phase + step * (first + np.arange(count)), dtype=np.float64)
