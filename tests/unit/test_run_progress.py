"""The progress of a run: the time left comes from whole chunks, and is told only once one is."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from lsx.runtime import run_progress
from lsx.runtime.chunk_plan import BEGINNING, Border
from lsx.runtime.run_progress import watched
from lsx.runtime.run_report import Progress

FRAMES, CHUNKS, STEPS = 125, 8, 12
PASTED = 0.01
"""Seconds that a frame takes after its chunk."""


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


class Run(Iterator[Any]):
    """The chain of a run of `chunks` chunks and its pipeline, on a clock; the first ones may be silent."""

    def __init__(self, clock: Clock, *, frames: int, chunks: int, first: float, other: float, silent: int = 0) -> None:
        self._clock, self._frames = clock, frames
        self._moments = self._events(chunks, first, other, silent)
        self._items = 0
        self.chunker = SimpleNamespace(length=frames, count=chunks, silent=silent)
        self.runner = SimpleNamespace(position=(0, 0))
        self.collected = self.computed = 0
        self.border = BEGINNING

    def _events(self, chunks: int, first: float, other: float, silent: int) -> Iterator[bool]:
        """Whether a frame comes, after each moment at which there is something to see."""
        for chunk in range(chunks):
            if chunk >= silent:
                seconds = first if chunk == silent else other
                for step in range(1, STEPS + 1):
                    self._clock.seconds += seconds / (STEPS + 1)
                    self.runner.position = (chunk, step)
                    yield False
                self._clock.seconds += seconds / (STEPS + 1)
                self.computed += 1
            self.collected += 1
            yield False
            for _ in range(min(16, self._frames - 16 * chunk)):
                self._clock.seconds += PASTED
                yield True

    def ready(self, _timeout: float) -> bool:
        return next(self._moments, True)

    def __next__(self) -> Any:
        self._items += 1
        if self._items > self._frames:
            raise StopIteration
        return None, None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_progress, "time", clock)
    return clock


def told(clock: Clock, run: Run) -> list[tuple[float, Progress]]:
    """What was told, and when."""
    seen: list[tuple[float, Progress]] = []
    for _ in watched(run, run, STEPS, lambda now: seen.append((clock.seconds, now))):  # type: ignore[arg-type]
        pass
    return seen


def test_nothing_is_said_of_the_time_left_before_a_chunk_is_whole(clock: Clock) -> None:
    seen = told(clock, Run(clock, frames=FRAMES, chunks=CHUNKS, first=7.0, other=7.0))
    early = [now for at, now in seen if at < 7.0]
    assert {now.step for now in early} == set(range(STEPS + 1))
    assert {now.seconds_left for now in early} == {None}


@pytest.mark.parametrize("first", [2.0, 5.0])
def test_the_time_left_is_what_the_run_then_takes(clock: Clock, first: float) -> None:
    seen = told(clock, Run(clock, frames=FRAMES, chunks=CHUNKS, first=first, other=2.0))
    end = clock.seconds
    later = [(at, now) for at, now in seen if now.chunk > 3 and now.frames < FRAMES]
    assert {now.chunk for _, now in later} == {4, 5, 6, 7, 8}
    for at, now in later:
        assert now.seconds_left == pytest.approx(end - at, abs=1.1)


def test_the_steps_of_the_chunk_under_way_count(clock: Clock) -> None:
    seen = told(clock, Run(clock, frames=32, chunks=2, first=13.0, other=13.0))
    second = [now for _, now in seen if now.chunk == 2 and now.frames == 16]
    assert [now.seconds_left for now in second][:3] == pytest.approx([12.0, 11.0, 10.0])


def test_a_clip_of_one_chunk_is_never_said_to_have_no_time_left(clock: Clock) -> None:
    seen = [now for _, now in told(clock, Run(clock, frames=16, chunks=1, first=7.0, other=7.0))]
    assert {now.seconds_left for now in seen if not now.frames} == {None}
    assert {now.seconds_left for now in seen if 0 < now.frames < 16} == {1.0}
    assert seen[-1].seconds_left == 0.0


def test_silent_chunks_take_no_time(clock: Clock) -> None:
    seen = told(clock, Run(clock, frames=128, chunks=8, first=5.0, other=5.0, silent=4))
    first = next(now for _, now in seen if now.seconds_left is not None)
    assert first.seconds_left == pytest.approx(15.0, rel=0.2)


def test_a_run_that_goes_on_counts_what_it_makes_itself(clock: Clock) -> None:
    """Two chunks of four were made before: the rate is that of the others, and the frames are those of all."""
    run = Run(clock, frames=32, chunks=2, first=8.0, other=8.0)
    run.border, run.collected = Border(32, 2, 32), 2
    run.chunker.length, run.chunker.count = 64, 4
    seen = [now for _, now in told(clock, run)]
    assert (seen[0].frames, seen[-1].frames) == (32, 64)
    assert seen[-1].fps == pytest.approx(32 / clock.seconds)
    assert max(now.seconds_left or 0 for now in seen) <= 8.0 + 1.1
