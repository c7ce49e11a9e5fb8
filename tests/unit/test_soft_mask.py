"""The soft mask in closed form against the original's erosions and blur."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from lsx.faces.soft_mask import blur_kernel, direct_mask, edge_width, profile_table


@pytest.mark.parametrize("width", [1, 3, 12])
def test_the_kernel_is_opencvs(width: int) -> None:
    kernel = blur_kernel(width)
    sigma = 0.3 * (width - 1) + 0.8  # what OpenCV takes for this size
    assert np.allclose(kernel, cv2.getGaussianKernel(2 * width + 1, sigma)[:, 0], atol=1e-6)
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize(("scale", "angle"), [(1.0, 0.0), (1.3, 0.2), (0.7, -0.4)])
def test_the_closed_form_is_the_direct_one(scale: float, angle: float) -> None:
    size, frame = (256, 256), (900, 800)
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    affine = np.array([[c, s, 0.0], [-s, c, 0.0]])
    affine[:, 2] = np.array([128, 128]) - affine[:, :2] @ np.array([450, 400])
    ones = cv2.warpAffine(
        np.ones((size[1], size[0]), np.float32), affine, frame, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    width = edge_width(affine, size, frame)
    assert width is not None
    hard, soft = direct_mask(np.asarray(ones, np.float32))
    assert width == int(math.sqrt(float(hard.sum(dtype=np.float64)))) // 20
    found = profile_table(affine, size, width)
    assert found is not None
    table, to_table = found
    warped = cv2.warpAffine(table, to_table, frame, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.abs(warped - soft).max() < 4e-3
    assert np.abs(warped - soft).mean() < 1e-4


def test_a_crop_too_small_for_its_edges_has_no_table() -> None:
    assert profile_table(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (20, 20), 5) is None
    hard, soft = direct_mask(np.ones((8, 8), np.float32), 0)
    assert hard is soft
