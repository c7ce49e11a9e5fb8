"""Measures of lips on mouths drawn by hand, on series whose figures are known, and on tiny faces, sharp and blurred."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.tiny.clips import tiny_clip
from lsx.core.noise import named_noise
from lsx.errors import UsageError
from lsx.faces.alignment import Aligner, crop_face
from lsx.metrics.images import psnr
from lsx.metrics.lips import closed_share, crop_region, lag, mouth_opening, mouth_psnr, sync_correlation

REGION = np.array([20.0, 30, 60, 70])


def drawn(height: int, colour: tuple[int, int, int] = (220, 170, 140)) -> NDArray[np.uint8]:
    """A face of one colour, and a dark slit of `height` pixels over the whole region's width."""
    face = np.full((100, 80, 3), colour, np.uint8)
    face[50 - height // 2 : 50 - height // 2 + height, 20:60] = (30, 6, 10)
    return face


def series(count: int, seed: int) -> NDArray[np.float64]:
    rough = named_noise("lips", (count + 8,), seed).astype(np.float64)
    return np.asarray(np.convolve(rough, np.ones(4) / 4, mode="valid")[:count])


@pytest.mark.parametrize("colour", [(250, 220, 200), (220, 170, 140), (120, 86, 66)])
def test_opening_is_the_dark_share_of_the_height(colour: tuple[int, int, int]) -> None:
    """A slit of h pixels in a region 40 high measures h / 40, in skin of any tone."""
    faces = np.stack([drawn(height, colour) for height in (0, 2, 4, 8)])
    np.testing.assert_allclose(mouth_opening(faces, REGION), [0, 0.05, 0.1, 0.2], atol=1e-9)
    moved = np.roll(faces, (3, 5), axis=(1, 2))
    regions = np.tile(REGION + np.array([5.0, 3, 5, 3]), (4, 1))
    np.testing.assert_allclose(mouth_opening(moved, regions), [0, 0.05, 0.1, 0.2], atol=1e-9)


def test_lips_and_teeth_are_not_the_inside() -> None:
    face = drawn(8)
    face[40:46, 20:60] = (190, 105, 105)
    face[46:48, 20:60] = (245, 240, 232)
    assert mouth_opening(face[None], REGION)[0] == pytest.approx(6 / 40)


def test_correlation_is_numpys() -> None:
    a, b = series(60, 0), series(60, 1)
    assert sync_correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert sync_correlation(3 * a - 7, a) == pytest.approx(1)
    assert sync_correlation(-a, a) == pytest.approx(-1)


def test_a_constant_series_correlates_with_nothing() -> None:
    a, still = series(60, 0), np.full(60, 0.1)
    assert sync_correlation(still, a) == 0
    assert sync_correlation(a, still) == 0
    assert lag(still, a) == 0
    assert math.isnan(sync_correlation(np.full(60, np.nan), a))


@pytest.mark.parametrize("shift", [-5, -2, 0, 1, 4])
def test_lag_is_how_much_later(shift: int) -> None:
    """measured[t + shift] = truth[t], under noise of a fifth of the signal."""
    long = series(120, 3)
    truth, measured = long[10:100], long[10 - shift : 100 - shift]
    noisy = measured + 0.1 * series(90, 4)
    assert lag(noisy, truth) == shift
    if abs(shift) > 1:
        assert abs(lag(noisy, truth, most=1)) <= 1


def test_a_short_series_tries_few_shifts() -> None:
    assert lag(np.array([0.0, 1, 0]), np.array([1.0, 0, 0])) in {0, 1}
    assert lag(np.array([1.0]), np.array([1.0])) == 0


def test_closed_share_counts_silent_frames_alone() -> None:
    truth = np.array([0, 0, 0, 0, 0.5, 0.005])
    measured = np.array([0.0, 0.01, 0.3, 0.02, 0.0, 0.01])
    assert closed_share(measured, truth) == pytest.approx(4 / 5)
    assert closed_share(measured, truth, limit=0.5) == 1
    assert math.isnan(closed_share(measured, np.ones(6)))


def test_psnr_looks_into_the_regions() -> None:
    truth = np.stack([drawn(4), drawn(8)])
    result = truth.copy()
    result[:, :20] = 0  # outside
    assert mouth_psnr(result, truth, REGION) == math.inf
    result[0, 30:70, 20:60] = np.clip(truth[0, 30:70, 20:60].astype(int) + 5, 0, 255)
    inside = np.zeros((100, 80), bool)
    inside[30:70, 20:60] = True
    assert mouth_psnr(result, truth, REGION) == pytest.approx(psnr(result, truth, inside))


def test_what_does_not_fit_is_refused() -> None:
    faces = drawn(4)[None]
    with pytest.raises(UsageError, match="outside pictures of 80 x 100"):
        mouth_opening(faces, np.array([200.0, 10, 240, 40]))
    with pytest.raises(UsageError, match="as many, as large"):
        mouth_psnr(faces, faces[:, :50], REGION)
    with pytest.raises(UsageError, match="one number for each frame"):
        sync_correlation(np.zeros(3), np.zeros(4))
    with pytest.raises(UsageError, match="NaN"):
        lag(np.array([np.nan, 0, 1]), np.zeros(3))


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_tiny_faces_measure_as_they_are_drawn(seed: int) -> None:
    """In frames, and in crops at 128 pixels that were blurred as a small model blurs, with noise of 3 levels."""
    clip = tiny_clip(seed, 75)
    truth = clip.truth.opening
    measured = mouth_opening(clip.frames, clip.regions)
    assert sync_correlation(measured, truth) > 0.99
    assert lag(measured, truth) == 0
    assert closed_share(measured, truth) == 1
    aligner = Aligner(128)
    crops = [crop_face(f, aligner.affine(p), 128) for f, p in zip(clip.frames, clip.points, strict=True)]
    noise = 3 * named_noise("camera", (75, 128, 128, 3), seed)
    blurred = np.clip(np.stack([cv2.GaussianBlur(c, (0, 0), 1.0) for c in crops]) + noise, 0, 255).astype(np.uint8)
    measured = mouth_opening(blurred, crop_region(128))
    assert sync_correlation(measured, truth) > 0.98
    assert lag(measured, truth) == 0
    assert closed_share(measured, truth) == 1
