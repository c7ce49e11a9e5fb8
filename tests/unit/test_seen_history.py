"""What was seen, kept in arrays and read back: the same answers for the next frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.faces.alignment import Face
from lsx.faces.following import FaceFollower
from lsx.faces.seen_history import SeenHistory, seen_frames


def _frames(count: int) -> list[NDArray[np.uint8]]:
    """Pictures with cuts at 20 and 41."""
    rng = np.random.default_rng(3)
    shots = [rng.integers(0, 255, (90, 160, 3), np.uint8) for _ in range(3)]
    return [shots[(number >= 20) + (number >= 41)] for number in range(count)]


class _Detector:
    """Faces that wander; the second one has no box and is not always there."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def detect(self, _: Any) -> list[Face]:
        self.number += 1
        at = np.array([[40.0, 30], [60, 30], [50, 45]]) + self.number
        faces = [Face(at, (30.0 + self.number, 20, 70, 60), 0.9, 0.1 * self.number)]
        return faces + ([Face(at + 80)] if self.number % 5 else [])

    def followed(self, _: Any, before: Any) -> list[Face] | None:
        return self.detect(_) if before and self.number % 7 else None


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("left", [5, 20, 21, 33])
def test_a_follower_goes_on(every: int, left: int) -> None:
    frames, detector = _frames(60), _Detector()
    follower = FaceFollower(detector.detect, detector.followed, every)
    history = SeenHistory({2 * (left - 1)})
    expected, met = [], []
    for number, frame in enumerate(frames):
        seen = follower.look(frame)
        expected.append(follower.follow(seen))
        history.add(2 * number, replace(seen, new_shot=expected[-1][1]))
        met.append(detector.number)
    arrays = history.taken(2 * (left - 1))
    assert history.taken(2 * left)["source"].tolist() == [2 * left]
    again = _Detector(met[left - 1])
    resumed = FaceFollower(again.detect, again.followed, every)
    kept = list(seen_frames(arrays))
    resumed.go_on_after([seen for _, seen in kept])
    found = [resumed.follow(seen) for _, seen in kept]
    found += [resumed.follow(resumed.look(frame)) for frame in frames[left:]]
    assert [source for source, _ in kept] == [2 * number for number in range(left)]
    assert [new_shot for _, new_shot in found] == [number in (0, 20, 41) for number in range(60)]
    for (faces, _), (wanted, _) in zip(found, expected, strict=True):
        assert [one.track for one in faces] == [one.track for one in wanted]
        for one, other in zip(faces, wanted, strict=True):
            assert np.array_equal(one.face.points, other.face.points)
            assert (one.face.box, one.face.score) == (other.face.box, other.face.score)
            assert one.face.mouth_opening == other.face.mouth_opening
