"""Stages on threads, joined by bounded queues. An error in any of them stops all, and surfaces once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["Stage", "StageTimes", "Stopped", "in_order", "run_stages"]


class Stopped(Exception):
    """The chain was aborted: raised in a stage that waits for its neighbours, and goes no further than its thread."""


class StageTimes:
    """Seconds each stage worked, not counting what it waited for its neighbours."""

    def __init__(self) -> None:
        self.busy: dict[str, float] = {}
        self.waits: dict[str, float] = {}
        """Seconds each stage waited: for items from the stage before, and for room in the next one."""

    @property
    def bottleneck(self) -> str | None:
        """The stage that worked longest."""
        return max(self.busy, key=lambda name: self.busy[name], default=None)

    def split(self, name: str, parts: dict[str, float]) -> None:
        """Tell a stage's time by its parts, where it has measured them."""
        if parts:
            self.busy = {k: v for n, s in self.busy.items() for k, v in (parts if n == name else {n: s}).items()}


class _Channel:
    """A bounded queue that can be ended by its writer and aborted by anyone."""

    def __init__(self, capacity: int) -> None:
        self._items: deque[Any] = deque()
        self._capacity = capacity
        self._ended = False
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or len(self._items) < self._capacity)
            if self._aborted:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._aborted or self._items or self._ended)
                if self._aborted:
                    raise Stopped
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # a waiting stage holds on to nothing

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()


class Stage:
    """A name, a function from an iterator of items to an iterator of items, and how many may wait after it.

    stop : called from any thread when the chain is aborted, where the function may wait for something of its own.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Iterator[Any]], Iterable[Any]],
        capacity: int = 2,
        stop: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.work = work
        self.capacity = capacity
        self.stop = stop


def in_order(work: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """`work` of each item on up to `workers` threads, in the order of the items; at most twice as many are held."""
    if workers < 2:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lsx-worker")
    pending: deque[Future[Any]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Waits:
    """Iterates, and adds up the time spent waiting for items."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        while True:
            start = time.perf_counter()
            try:
                item = next(self._items)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - start
            yield item


def run_stages(stages: list[Stage], times: StageTimes) -> Generator[Any, None, None]:
    """Run the chain and yield what its last stage yields. The first stage is given an empty iterator.

    Closing the generator, or an error in any stage, stops all threads before control returns.
    """
    channels = [_Channel(stage.capacity) for stage in stages]
    errors: list[BaseException] = []
    lock = threading.Lock()

    def abort(error: BaseException | None) -> None:
        with lock:
            if error is not None and not errors:
                errors.append(error)
        for channel in channels:
            channel.abort()
        for stage in stages:
            if stage.stop is not None:
                stage.stop()

    def work(index: int) -> None:
        stage, target = stages[index], channels[index]
        source = _Waits(channels[index - 1] if index else ())
        waited = 0.0
        start = time.perf_counter()
        try:
            for item in stage.work(iter(source)):
                before = time.perf_counter()
                target.put(item)
                waited += time.perf_counter() - before
            target.end()
        except Stopped:
            pass
        except BaseException as error:
            abort(error)
        finally:
            times.waits[stage.name] = waited + source.seconds
            times.busy[stage.name] = time.perf_counter() - start - waited - source.seconds

    threads = [
        threading.Thread(target=work, args=(i,), name=f"lsx-{stage.name}", daemon=True)
        for i, stage in enumerate(stages)
    ]
    for thread in threads:
        thread.start()
    try:
        yield from channels[-1]
    except Stopped:
        pass
    finally:
        abort(None)
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
