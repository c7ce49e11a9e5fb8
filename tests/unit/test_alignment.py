"""Faces out of frames: the similarity, against a least-squares solution, and the crop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lsx.errors import UsageError
from lsx.faces.alignment import Aligner, Face, crop_face, crop_size, region_of

POINTS = np.array([[100.0, 100], [150, 104], [124, 130]])


@pytest.mark.parametrize("resolution", [64, 128, 256, 512])
def test_a_crop_is_square_and_of_the_models_size(resolution: int) -> None:
    affine = Aligner(resolution).affine(POINTS)
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    crop = crop_face(frame, affine, resolution)
    assert crop.shape == (resolution, resolution, 3)
    assert crop.dtype == np.uint8
    assert min(crop_size(resolution)) > 0


def test_turning_and_scaling_the_face_turns_and_scales_its_affine() -> None:
    """A similarity of the points gives the same crop of the same picture, moved."""
    first = Aligner(256).affine(POINTS)
    angle = 0.3
    turn = 2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    second = Aligner(256).affine(POINTS @ turn.T + [7, -3])
    moved = np.concatenate([POINTS @ turn.T + [7, -3], np.ones((3, 1))], 1) @ second.T
    stayed = np.concatenate([POINTS, np.ones((3, 1))], 1) @ first.T
    # Where the original rounds the crop's place is its own: all points are off by the same part of a pixel.
    assert np.ptp(moved - stayed, axis=0).max() < 1e-6
    assert np.abs(moved - stayed).max() < 1


def test_the_region_holds_the_crop() -> None:
    affine = Aligner(256).affine(POINTS)
    assert region_of(affine, crop_size(256), (320, 240)) is not None


@pytest.mark.parametrize("points", [np.zeros((2, 2)), np.full((3, 2), np.nan), np.zeros(3), 3, "nose", None])
def test_what_is_no_face(points: Any) -> None:
    with pytest.raises(UsageError, match="give three finite points"):
        Face(points=points)


def test_points_in_one_place_are_no_face() -> None:
    with pytest.raises(UsageError, match="one and the same point"):
        Aligner(256).affine(np.ones((3, 2)))
