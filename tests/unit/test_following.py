"""Faces of frames, followed: shots and tracks together, whatever looked at the frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames
from lsx.core.tensors import Frame
from lsx.faces.alignment import Face
from lsx.faces.following import FaceFollower
from tests.unit.test_tracks import face


def test_tracks_last_as_long_as_the_shot() -> None:
    portrait = list(portrait_frames(30, 320, 240))
    frames = portrait[:15] + [np.ascontiguousarray(255 - frame[:, ::-1]) for frame in portrait[15:]]
    follower = FaceFollower(lambda _: [face(80, 100), face(240, 100)])
    seen = [follower.look(frame) for frame in reversed(frames)][::-1]  # in any order
    followed = [follower.follow(one) for one in seen]
    assert [number for number, (_, new_shot) in enumerate(followed) if new_shot] == [0, 15]
    assert [[one.track for one in faces] for faces, _ in followed] == [[1, 2]] * 15 + [[3, 4]] * 15


@pytest.mark.parametrize("every", [2, 5])
def test_faces_are_looked_for_in_every_nth_frame_and_after_a_cut(every: int) -> None:
    portrait = list(portrait_frames(30, 320, 240))
    frames = portrait[:13] + [np.ascontiguousarray(255 - frame[:, ::-1]) for frame in portrait[13:]]
    looked: list[int] = []
    moved: list[int] = []
    number = -1

    def detect(_: Frame) -> list[Face]:
        looked.append(number)
        return [face(80, 100)]

    def followed(_: Frame, before: Sequence[Face]) -> list[Face] | None:
        moved.append(number)
        return None if number == 16 else list(before)

    follower = FaceFollower(detect, followed, every)
    for number, frame in enumerate(frames):
        faces, _ = follower.follow(follower.look(frame))
        assert [one.track for one in faces] == [1 if number < 13 else 2]
    expected = {2: [*range(0, 13, 2), 13, 15, *range(16, 30, 2)], 5: [0, 5, 10, 13, 16, 21, 26]}[every]
    assert looked == expected  # a cut at 13; at 16 a face is lost
    assert sorted({*looked, *moved}) == list(range(30))
