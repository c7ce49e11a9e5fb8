"""Which frames a chunk has, and what it counts in each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lsx.runtime.chunk_plan import BEGINNING, Border, Part, chunk_count, planned_chunks
from lsx.runtime.chunker import Chunker
from lsx.runtime.face_aligner import AlignedFrame

F = 16
EMPTY = np.zeros((1, 1, 3), np.uint8)


def starts(parts: list[Part], readable: int, overlap: int = 0) -> list[int]:
    return [chunk.frames.start for chunk in planned_chunks(parts, F, readable, overlap)]


def test_the_chunks_of_a_clip() -> None:
    assert starts([Part(0, 40)], 40) == [0, 16, 24]
    assert starts([Part(0, 40)], 40, 4) == [0, 12, 24]
    assert starts([Part(0, 41)], 41, 4) == [0, 12, 24, 25]
    assert starts([Part(0, 5)], 16) == [0]
    kept = [chunk.kept for chunk in planned_chunks([Part(0, 40)], F, 40, 0)]
    assert kept == [range(16), range(16, 32), range(32, 40)]


def test_a_part_has_chunks_of_its_own() -> None:
    assert starts([Part(10, 50)], 100) == [10, 26, 34]
    assert starts([Part(3, 8)], 100) == [0]  # completed with the frames before it, and after where there are none
    assert starts([Part(95, 100)], 100) == [84]
    two = planned_chunks([Part(10, 30, voice=0), Part(12, 28, voice=1, rule=1)], F, 100)
    assert [(chunk.part.voice, chunk.frames.start) for chunk in two] == [(0, 10), (1, 12), (0, 14)]


def test_an_overlap_leads_over_evenly() -> None:
    before, after, _ = planned_chunks([Part(0, 40)], F, 40, 3)
    assert before.weights[-4:] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert after.weights[:4] == pytest.approx([0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("overlap", range(9))
def test_the_weights_add_up_to_one_in_a_part_and_to_nothing_beyond(overlap: int) -> None:
    random = np.random.default_rng(overlap)
    for length in range(1, 100):
        readable = max(length, F)
        start = int(random.integers(0, length))
        part = Part(start, int(random.integers(start + 1, length + 1)))
        for one in (Part(0, length), part):
            total = np.zeros(readable, np.float32)
            chunks = list(planned_chunks([one], F, readable, overlap))
            assert len(chunks) == chunk_count(one, F, overlap)
            for chunk in chunks:
                assert 0 <= chunk.frames.start < chunk.frames.stop <= readable
                total[chunk.frames.start : chunk.frames.stop] += chunk.weights
            expected = np.zeros(readable)
            expected[one.start : one.stop] = 1
            np.testing.assert_allclose(total, expected, atol=1e-6)


def _passed(chunker: Chunker, border: Border) -> list[tuple[int, tuple[int, ...], list[int]]]:
    """Number, frames and finished frames of every chunk from a border on."""
    items = (AlignedFrame(index, EMPTY, {}) for index in range(border.read, chunker.source_length))
    return [
        (chunk.number, tuple(item.index for item in chunk.items), [item.index for item in chunk.done])
        for chunk in chunker.chunks(items, border)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_run_may_be_left_at_a_border_and_gone_on_from(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length, stride, overlap, every = (int(rng.integers(*span)) for span in ((17, 400), (1, 4), (0, 9), (1, 90)))
    parts = []
    for voice in range(int(rng.integers(1, 4))):
        start, stop = sorted(rng.integers(0, length + 1, 2).tolist())
        parts.append(Part(start, max(stop, start + 1), voice))
    chunker = Chunker(frames=F, length=length, overlap=overlap, stride=stride, parts=parts)
    whole, planned, borders = _passed(chunker, BEGINNING), list(chunker.plan()), chunker.borders(every)
    assert borders or length < 1.5 * every + 2 * F * stride
    assert all(later.frame - earlier.frame >= every for earlier, later in itertools.pairwise([BEGINNING, *borders]))
    for border in borders:
        assert border.frame + every / 2 <= length
        assert all(chunk.kept.start >= border.frame for chunk in planned[border.chunk :])
        # when the frame before it is finished, exactly the chunks before it have come
        come = next(number for number, (_, _, done) in enumerate(whole) if border.frame - 1 in done)
        assert max((number for number, frames, _ in whole[: come + 1] if frames), default=-1) == border.chunk - 1
        after = _passed(chunker, border)
        assert [one[:2] for one in after if one[1]] == [one[:2] for one in whole if one[1] and one[0] >= border.chunk]
        assert [index for *_, done in after for index in done] == list(range(border.frame, length))


def test_a_plan_of_any_length_begins_at_once() -> None:
    endless = Part(0, 10**12)
    first = [chunk.frames.start for _, chunk in zip(range(3), planned_chunks([endless], F, 10**12), strict=False)]
    assert first == [0, 16, 32]
    assert chunk_count(endless, F) == 10**12 // F
    every = list(planned_chunks([Part(3, 80)], F, 80, 2, stride=3))
    assert len(every) == chunk_count(Part(3, 80), F, 2, 3)
