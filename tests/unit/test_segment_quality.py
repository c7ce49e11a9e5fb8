"""Figures of a segment's quality, by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames
from lsx.faces.sharpness import sharpness_of
from lsx.training.segment_quality import outside_share, stillness_of


def test_figures_of_quality() -> None:
    sharp = np.stack([*portrait_frames(3, 256, 192)])[:, :192, :192]
    soft = np.stack([cv2.GaussianBlur(face, (0, 0), 3) for face in sharp]).astype(np.uint8)
    assert sharpness_of(sharp) > 4 * sharpness_of(soft)
    assert stillness_of(np.repeat(sharp[:1], 3, axis=0)) == 0
    assert stillness_of(sharp) > 1
    inside = np.array([[1.0, 0, -100], [0, 1.0, -100]])
    half = np.array([[1.0, 0, 105.0], [0, 1.0, 0.0]])  # the crop's left half lies left of the frame
    assert outside_share([inside], (1000, 1000), 256) == pytest.approx(0, abs=1e-6)
    assert outside_share([inside, half], (1000, 1000), 256) == pytest.approx(0.5)
