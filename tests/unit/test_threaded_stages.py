"""Stages: order, bounded queues, errors that stop everything and surface once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lsx.core.threaded_stages import Stage, StageChain, StageTimes, in_order


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("lsx-")]


def test_items_keep_their_order() -> None:
    chain = [
        Stage("count", lambda _: iter(range(100))),
        Stage("double", lambda items: (2 * i for i in items)),
        Stage("text", lambda items: (str(i) for i in items)),
    ]
    times = StageTimes()
    assert list(StageChain(chain, times)) == [str(2 * i) for i in range(100)]
    assert set(times.busy) == {"count", "double", "text"}
    assert not _threads()


def test_no_stage_runs_far_ahead() -> None:
    made = 0

    def count(_: Iterator[int]) -> Iterator[int]:
        nonlocal made
        for i in range(1000):
            made += 1
            yield i

    results = StageChain([Stage("count", count, capacity=3), Stage("same", lambda i: i, capacity=2)], StageTimes())
    for _ in range(10):
        next(results)
    # Taken, waiting in two queues, and in three hands.
    assert made <= 10 + 3 + 2 + 3
    results.close()
    assert not _threads()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_stops_all_and_surfaces_once(failing: int) -> None:
    def stage(index: int) -> Stage:
        def work(items: Iterator[int]) -> Iterator[int]:
            for number, item in enumerate(items if index else iter(range(1000))):
                if index == failing and number == 5:
                    raise ValueError(f"stage {index}")
                yield item

        return Stage(f"s{index}", work)

    with pytest.raises(ValueError, match=f"stage {failing}"):
        list(StageChain([stage(i) for i in range(3)], StageTimes()))
    assert not _threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_in_order_keeps_order_and_holds_few_items(workers: int) -> None:
    taken, together = 0, threading.Barrier(workers)

    def count() -> Iterator[int]:
        nonlocal taken
        for i in range(30):
            taken += 1
            yield i

    def work(item: int) -> int:
        together.wait(10)  # passes only when all workers are at it at once
        return item * item

    results = in_order(work, count(), workers)
    assert [next(results) for _ in range(10)] == [i * i for i in range(10)]
    assert taken <= 10 + 2 * workers
    assert list(results) == [i * i for i in range(10, 30)]
    assert not _threads()


def test_in_order_ends_its_threads_on_an_error() -> None:
    def work(item: int) -> int:
        if item == 4:
            raise ValueError("four")
        return item

    with pytest.raises(ValueError, match="four"):
        list(in_order(work, range(100), 2))
    assert not _threads()
