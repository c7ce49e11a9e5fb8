"""Faces followed through frames: numbers against motions that are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from lsx.faces.alignment import Face
from lsx.faces.tracks import LONGEST_GAP, FaceTracker, _assigned, box_of, overlap


def face(x: float, y: float, size: float = 100.0, *, box: bool = True) -> Face:
    """A face whose box has its middle at (x, y)."""
    points = np.array([[x - size / 4, y - size / 4], [x + size / 4, y - size / 4], [x, y]])
    return Face(points, box=(x - size / 2, y - size / 2, x + size / 2, y + size / 2) if box else None)


def followed(frames: Sequence[Sequence[Face]], cuts: Sequence[int] = (0,)) -> list[list[int]]:
    tracker = FaceTracker()
    return [[t.track for t in tracker.update(faces, new_shot=n in cuts)] for n, faces in enumerate(frames)]


def test_two_that_move_keep_their_numbers_whatever_their_order() -> None:
    frames = [[face(100 + 3 * n, 100), face(400 - 3 * n, 120)][:: 1 if n % 2 else -1] for n in range(40)]
    numbers = followed(frames)
    assert numbers[0] == [1, 2]
    for n, found in enumerate(numbers):
        assert dict(zip((f.points[2, 0] < 250 for f in frames[n]), found, strict=True)) == {True: 2, False: 1}


def test_the_best_of_all_pairings_is_taken() -> None:
    """The first face is nearest to both places; taken greedily the second would have none."""
    numbers = followed([[face(100, 100), face(160, 100)], [face(140, 100), face(215, 100)]])
    assert numbers == [[1, 2], [1, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 5), (4, 4)])
def test_pairs_are_those_of_scipy(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        costs = random.random(shape)
        rows, columns = linear_sum_assignment(costs)
        assert _assigned(costs) == list(zip(rows, columns, strict=True))


def test_a_gap_is_bridged_and_a_long_one_is_not() -> None:
    for gap, number in ((LONGEST_GAP, 1), (LONGEST_GAP + 1, 2)):
        assert followed([[face(100, 100)], *[[]] * gap, [face(104, 100)]])[-1] == [number]


def test_a_cut_ends_every_track() -> None:
    frames = [[face(100, 100), face(300, 100)]] * 6
    assert followed(frames, cuts=(0, 3)) == [[1, 2]] * 3 + [[3, 4]] * 3


@pytest.mark.parametrize("other", [face(260, 100), face(100, 100, 300), face(100, 100, 40)])
def test_another_place_or_size_is_another_face(other: Face) -> None:
    assert followed([[face(100, 100)], [other]])[-1] == [2]


def test_faces_without_boxes() -> None:
    frames = [[face(100 + 5 * n, 100, box=False), face(400, 100 + 5 * n, box=False)] for n in range(20)]
    assert followed(frames) == [[1, 2]] * 20


def test_overlap_and_boxes() -> None:
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == 1 / 7
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0
    x0, y0, x1, y1 = box_of(face(100, 100, box=False))
    assert x0 < 75
    assert x1 > 125
    assert y0 < 75
    assert y1 > 100
