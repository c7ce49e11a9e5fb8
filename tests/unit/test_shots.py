"""Cuts, told frame by frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames
from lsx.faces.shots import LEAST_SHOT, ShotCuts, shot_thumbnail


def _begins(frames: list[NDArray[np.uint8]]) -> list[int]:
    cuts = ShotCuts()
    return [n for n, frame in enumerate(frames) if cuts.begins(shot_thumbnail(frame))]


def test_a_cut_is_told_at_its_first_frame_and_motion_is_none() -> None:
    portrait = list(portrait_frames(60, 640, 360))
    other = [np.ascontiguousarray(255 - frame[:, ::-1]) for frame in portrait]
    assert _begins(portrait) == [0]
    assert _begins(portrait[:20] + other[20:45] + portrait[45:]) == [0, 20, 45]
    assert _begins(portrait[:3] + other[3:9] + portrait[9:]) == [0, 3]  # the way back follows too soon
    assert _begins(portrait[:1] + other[1:13] + portrait[13:]) == [0, 1, 13]


def test_a_flash_is_one_cut_at_most() -> None:
    portrait = list(portrait_frames(40, 640, 360))
    white = [np.full_like(portrait[0], 255)]
    found = _begins(portrait[:20] + white + portrait[21:])
    assert found in ([0, 20], [0])
    assert _begins(portrait[: LEAST_SHOT - 2] + white + portrait[LEAST_SHOT - 1 :])[0] == 0


def test_thumbnails_are_small_and_keep_the_shape() -> None:
    assert shot_thumbnail(np.zeros((1080, 1920, 3), np.uint8)).shape == (144, 256, 3)
    assert shot_thumbnail(np.zeros((1920, 1080, 3), np.uint8)).shape == (256, 144, 3)
    assert shot_thumbnail(np.zeros((2, 5000, 3), np.uint8)).shape == (1, 256, 3)
    assert shot_thumbnail(np.zeros((64, 48, 3), np.uint8)).shape == (64, 48, 3)
