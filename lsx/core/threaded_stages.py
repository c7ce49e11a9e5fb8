"""Stages on threads, joined by bounded queues. An error in any of them stops all, and surfaces once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lsx.errors import EngineError

__all__ = ["Stage", "StageChain", "StageTimes", "Stopped", "in_order", "run_stages"]


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


class _Channel(Iterator[Any]):
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
        return self

    def __next__(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._items or self._ended)
            if self._aborted:
                raise Stopped
            if not self._items:
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def ready(self, timeout: float) -> bool:
        """Wait until `__next__` would not, or for `timeout` seconds; whether it would not."""
        with self._changed:
            return self._changed.wait_for(lambda: self._aborted or bool(self._items) or self._ended, timeout)

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


def run_stages(stages: Iterable[Stage]) -> Iterator[Any]:
    """What the last of `stages` yields, each item going through all of them on the calling thread."""
    items: Iterator[Any] = iter(())
    for stage in stages:
        items = iter(stage.work(items))
    return items


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


class StageChain(Iterator[Any]):
    """A chain of stages under way: iterating yields what its last stage yields. Its threads start with the first item.

    The first stage is given an empty iterator. An error in any stage stops all of them and is raised once, when its
    consumer next asks; an end, an error or `close` leaves no thread behind. `abort` and `close` may be called from any
    thread, also while another waits for an item.
    """

    def __init__(self, stages: list[Stage], times: StageTimes) -> None:
        self._stages, self._times = stages, times
        self._channels = [_Channel(stage.capacity) for stage in stages]
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._started = self._aborted = False
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"lsx-{stage.name}", daemon=True)
            for i, stage in enumerate(stages)
        ]

    @property
    def own_thread(self) -> bool:
        """Whether this is asked from one of the chain's own threads, which cannot wait for themselves."""
        return threading.current_thread() in self._threads

    def __next__(self) -> Any:
        self._start()
        try:
            return next(self._channels[-1])
        except (StopIteration, Stopped):
            pass
        self.close()
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def ready(self, timeout: float) -> bool:
        """Wait until an item, the end or an error is there, or for `timeout` seconds; whether one is."""
        self._start()
        return self._channels[-1].ready(timeout)

    def _start(self) -> None:
        with self._lock:
            if self._started or self._aborted:
                return
            self._started = True
            for thread in self._threads:
                thread.start()

    def abort(self, error: BaseException | None = None) -> None:
        """Tell all stages to stop, and return at once. `error` is what the consumer gets; the first abort counts."""
        with self._lock:
            if not self._aborted:
                self._error = error
            self._aborted = True
        for channel in self._channels:
            channel.abort()
        for stage in self._stages:
            if stage.stop is not None:
                stage.stop()

    def join(self) -> None:
        """Wait until every thread has ended."""
        with self._lock:
            started = self._started
        for thread in self._threads if started else ():
            thread.join()

    def close(self) -> None:
        """Stop all stages and wait for their threads. The consumer gets no more items."""
        self.abort()
        self.join()

    def _work(self, index: int) -> None:
        stage, target = self._stages[index], self._channels[index]
        source = _Waits(self._channels[index - 1] if index else ())
        waited = 0.0
        start = time.perf_counter()
        try:
            for item in stage.work(iter(source)):
                before = time.perf_counter()
                target.put(item)
                waited += time.perf_counter() - before
            target.end()
        except Stopped:
            if not self._aborted:  # nobody asked for it: a fault, which must not look like an end
                self.abort(EngineError(f"the stage {stage.name} stopped without being told to. Please report this"))
        except BaseException as error:
            self.abort(error)
        finally:
            self._times.waits[stage.name] = waited + source.seconds
            self._times.busy[stage.name] = time.perf_counter() - start - waited - source.seconds
