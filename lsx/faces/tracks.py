"""Faces followed from frame to frame: the same number for the same face within a shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsx.faces.alignment import Face

__all__ = ["LONGEST_GAP", "FaceTracker", "TrackedFace", "box_of", "overlap"]

LONGEST_GAP = 12
"""Frames for which a face may be missing and still be the same one when it is there again."""

_FARTHEST = 0.6  # of the face's height that its landmarks may move from frame to frame
_LEAST_OVERLAP = 0.1  # or share of both boxes that they have in common
_NEVER = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFace:
    """A face of one frame, and which track it belongs to."""

    track: int
    """Number of the track, from 1 on, in the order in which tracks begin."""
    face: Face


def box_of(face: Face) -> tuple[float, float, float, float]:
    """The face's box (x0, y0, x1, y1), or one round its three points where it has none."""
    if face.box is not None:
        return face.box
    (x0, y0), (x1, y1) = face.points.min(0).tolist(), face.points.max(0).tolist()
    width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    return x0 - width / 2, y0 - height / 2, x1 + width / 2, y1 + 2 * height


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


@dataclass(slots=True, eq=False)
class _Track:
    number: int
    face: Face
    missing: int = 0


class FaceTracker:
    """Numbers the faces of frames that come in order: by overlap and landmarks' distance, the best of all pairings.

    A new shot ends every track: nothing is guessed across a cut.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._count = 0

    def update(self, faces: Sequence[Face], *, new_shot: bool) -> list[TrackedFace]:
        """The next frame's faces with their tracks, in the order in which they came."""
        if new_shot:
            self._tracks = []
        paired = self._paired(faces)
        found = []
        for number, face in enumerate(faces):
            track = paired.get(number)
            if track is None:
                self._count += 1
                track = _Track(self._count, face)
                self._tracks.append(track)
            track.face, track.missing = face, -1
            found.append(TrackedFace(track.number, face))
        for track in self._tracks:
            track.missing += 1
        self._tracks = [track for track in self._tracks if track.missing <= LONGEST_GAP]
        return found

    def _paired(self, faces: Sequence[Face]) -> dict[int, _Track]:
        """Tracks that go on, by the number of the face that they go on with."""
        if not faces or not self._tracks:
            return {}
        costs = np.array([[_cost(track, face) for track in self._tracks] for face in faces])
        return {row: self._tracks[column] for row, column in _assigned(costs) if costs[row, column] < _NEVER}


def _assigned(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of a row and a column, none of them twice, whose costs are the least in all."""
    if 1 in costs.shape:
        row, column = np.unravel_index(costs.argmin(), costs.shape)
        return [(int(row), int(column))]
    from scipy.optimize import linear_sum_assignment  # here: a quarter of a second that only several faces need

    rows, columns = linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _cost(track: _Track, face: Face) -> float:
    """How unlike the track's last face this one is: 0 for the same place, more than 1 for one far off."""
    last, box = box_of(track.face), box_of(face)
    height = max(last[3] - last[1], 1.0)
    distance = float(np.hypot(*_moved(track.face.points, face.points))) / height
    common = overlap(last, box)
    grown = (box[3] - box[1]) / height
    if (distance > _FARTHEST * (1 + track.missing / 4) and common < _LEAST_OVERLAP) or not 0.5 < grown < 2:
        return _NEVER
    return 1 - common + distance


def _moved(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the middle of the three points went, pixels [2]."""
    moved: NDArray[np.float64] = after.mean(0) - before.mean(0)
    return moved
