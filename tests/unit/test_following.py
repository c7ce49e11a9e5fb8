"""Faces of frames, followed: shots and tracks together, whatever looked at the frames."""

from __future__ import annotations

import numpy as np

from examples.synthetic_clip import portrait_frames
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
