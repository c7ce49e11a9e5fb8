"""Sharpness falls with blur, and does not depend on a face's size beyond 256 pixels."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from examples.synthetic_clip import portrait_frames
from lsx.faces.sharpness import grey_face, sharpness_of


def test_blur_lowers_it() -> None:
    (frame,) = portrait_frames(1, 512, 512)
    blurred = [cv2.GaussianBlur(frame, (0, 0), sigma) if sigma else frame for sigma in (0, 1, 2, 4)]
    values = [sharpness_of(np.asarray(face, np.uint8)[None]) for face in blurred]
    assert all(a > 1.5 * b for a, b in pairwise(values))
    assert sharpness_of(np.full((1, 64, 64, 3), 90, np.uint8)) == 0
    assert sharpness_of(np.stack([blurred[0], blurred[0], blurred[3]]).astype(np.uint8)) == values[0]  # the median


def test_large_faces_are_judged_at_256_pixels() -> None:
    (frame,) = portrait_frames(1, 512, 512)
    half = cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA)
    assert grey_face(frame).shape == (256, 256)
    assert abs(sharpness_of(frame[None]) / sharpness_of(np.asarray(half, np.uint8)[None]) - 1) < 0.05
    assert grey_face(frame[:100, :100]).shape == (100, 100)
