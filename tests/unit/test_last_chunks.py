"""Which chunk a chunk goes on from, and how much of each frame's latents it takes of that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from lsx.runtime.chunk_plan import Part, planned_chunks
from lsx.runtime.face_choice import Slot
from lsx.runtime.last_chunks import LastChunks

F = 16


def _neighbours(parts: list[Part], readable: int, overlap: int, stride: int = 1, slots: int = 1) -> list[Any]:
    """(number, number of the chunk before or None, shift, share) of every planned chunk."""
    last, found, number = LastChunks(), [], 0
    for planned in planned_chunks(parts, F, readable, overlap, stride):
        for slot in range(slots):
            items = [SimpleNamespace(index=index) for index in planned.frames]
            chunk: Any = SimpleNamespace(
                items=items, part=planned.part, slot=Slot(0, slot), weights=planned.weights.copy()
            )
            before = last.before(chunk)
            found.append(
                (number, None, 0, None) if before is None else (number, before.chunk, before.shift, before.share)
            )
            pending: Any = number
            last.add(chunk, pending)
            number += 1
    return found


def test_each_goes_on_from_the_one_before_it() -> None:
    chunks = _neighbours([Part(0, 60)], 60, 4)
    assert [(before, shift) for _, before, shift, _ in chunks] == [(None, 0), (0, 12), (1, 12), (2, 12), (3, 8)]
    assert np.allclose(chunks[1][3], [0.8, 0.6, 0.4, 0.2, *[0] * 12])
    # the last one ends with the clip: what it has in common with the one before is that one's, but for the four
    assert np.allclose(chunks[4][3], [1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, *[0] * 8])


def test_faces_and_interleaved_chunks_go_on_from_their_own() -> None:
    two = _neighbours([Part(0, 40)], 40, 4, slots=2)
    assert [before for _, before, _, _ in two] == [None, None, 0, 1, 2, 3]
    interleaved = _neighbours([Part(0, 80)], 80, 4, stride=2)
    assert [(before, shift) for _, before, shift, _ in interleaved] == [
        (None, 0), (None, 0), (0, 12), (1, 12), (2, 12), (3, 12),
    ]  # fmt: skip


def test_another_part_is_no_neighbour() -> None:
    chunks = _neighbours([Part(0, 28), Part(28, 40, 1)], 40, 4)
    # the second part is shorter than a chunk and begins with frames of the first
    assert [before for _, before, _, _ in chunks] == [None, 0, None]
