"""Colours and details of a made face, against what was taken from it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.faces.retouch import Retouch, colour_offset, painted_region
from tests.seeded_inputs import picture

R = 128
INSIDE = np.zeros((R, R), bool)
INSIDE[60:120, 24:104] = True


def face() -> Frame:
    return picture(R, R, 0.3)


def test_a_cast_is_taken_back_and_nothing_else_is_touched() -> None:
    crop = face()
    made = crop.astype(np.float32)
    cast = np.array([7.0, -4.0, 12.0], np.float32)
    made[INSIDE] += cast
    made[80:100, 44:84] = 200  # the mouth says something else
    assert np.array_equal(painted_region(made, crop) > 0, INSIDE)
    offset = colour_offset(made, crop, painted_region(made, crop))
    assert offset == pytest.approx(-cast, abs=0.01)
    result = Retouch(colour_match=True)(made, crop)
    assert np.abs(result - crop)[~INSIDE].max() == 0
    assert result[70, 30] == pytest.approx(crop[70, 30].astype(float), abs=0.01)
    assert result[90, 60] == pytest.approx(200 - cast, abs=0.01)


def test_without_a_cast_the_face_stays() -> None:
    crop = face()
    made = crop.astype(np.float32)
    made[80:100, 44:84] = 200
    made[60:120, 24:104] += 0.6  # painted, and as good as the same
    assert np.abs(Retouch(colour_match=True)(made, crop) - made).max() < 0.7
    assert Retouch()(made, crop) is made


def test_sharpening_brings_back_what_a_blur_took() -> None:
    truth = face().astype(np.float32)
    truth[::4] = np.minimum(truth[::4] + 40, 255)
    crop = truth.astype(np.uint8)
    made = crop.astype(np.float32)
    blurred = np.asarray(cv2.GaussianBlur(made, (0, 0), 0.7))
    made[INSIDE] = blurred[INSIDE]
    core = (slice(66, 114), slice(30, 98))

    def loss(picture: NDArray[Any]) -> float:
        return float(np.abs(picture - crop)[core].mean())

    sharp = Retouch(sharpen=1)(made, crop)
    assert loss(sharp) < 0.85 * loss(made)
    assert np.array_equal(sharp[~INSIDE], made[~INSIDE])
    assert sharp.min() >= 0
    assert sharp.max() <= 255.01
    # light, not levels, is kept: a bright line on dark ground loses as much as its surroundings gain
    before, after = ((picture[core] / 255) ** 2.2 for picture in (made, sharp))
    assert before.mean() == pytest.approx(after.mean(), rel=0.01)
