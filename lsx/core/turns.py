"""Turns: runs that share engines use them one at a time, a chunk each, by priority and by fair shares of time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from lsx.core.cancel import CancelToken
from lsx.core.gate import Gate
from lsx.core.threaded_stages import Stopped
from lsx.errors import UsageError

__all__ = ["PRIORITY", "FairQueue", "Place", "Slots", "Turns", "check_priority"]

PRIORITY = 5
"""The usual one of 1 to 9; a smaller one goes first."""


def check_priority(priority: int) -> int:
    """The same. Raises UsageError unless it is a whole number from 1 to 9."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not 1 <= priority <= 9:
        raise UsageError(f"priority is {priority!r}; give a whole number from 1, which goes first, to 9")
    return priority


@dataclass(slots=True, eq=False)
class Place:
    """One run's place among those that take turns."""

    priority: int = PRIORITY
    due: float = 0.0
    """Seconds that it had, on the clock of its priority."""
    cost: float = 0.0
    """Seconds that a turn of it is reckoned to take: those of the last one that is known."""


@dataclass(frozen=True, slots=True, order=True)
class _Asked:
    """What is waited with: the least goes first."""

    priority: int
    start: float
    """The clock's second from which on the turn would count."""
    number: int
    """Of the asking: among equals the first that came."""
    place: Place = field(compare=False)


class FairQueue:
    """The order of turns: by priority, and within one the run that had the least time, by start tags. Not to be shared.

    A run that comes later, or waited for something else, has no claim on the time that went by.
    Source: Goyal, Vin, Cheng, Start-time Fair Queuing (1996).
    """

    def __init__(self) -> None:
        self._waiting: list[_Asked] = []
        self._numbers = itertools.count()
        self._clocks: dict[int, float] = {}

    def ask(self, place: Place) -> _Asked:
        """Wait for a turn."""
        asked = _Asked(
            place.priority, max(place.due, self._clocks.get(place.priority, 0.0)), next(self._numbers), place
        )
        self._waiting.append(asked)
        return asked

    @property
    def first(self) -> _Asked | None:
        """What is next."""
        return min(self._waiting, default=None)

    def leave(self, asked: _Asked) -> None:
        """Wait no more."""
        self._waiting.remove(asked)

    def give(self, asked: _Asked) -> None:
        """Give the turn, which counts as the last one took until `charge` knows better."""
        self.leave(asked)
        self._clocks[asked.priority] = asked.start
        asked.place.due = asked.start + asked.place.cost

    def charge(self, place: Place, seconds: float) -> None:
        """Put what a turn of `place` took in the place of what it was reckoned to take."""
        place.due += seconds - place.cost
        place.cost = seconds


class Turns:
    """A lock that is given in the order of a FairQueue. Used from any thread.

    A turn is a chunk, and never interrupted: a run of a smaller priority goes before all others at the next one. Runs
    of one priority get equal shares of the engines' time, however long a chunk of each takes. A plain lock is mostly
    taken again by the thread that just gave it back.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue = FairQueue()
        self._busy = False

    @contextmanager
    def taken(self, place: Place, stop: CancelToken) -> Iterator[None]:
        """Wait for a turn and keep it for the block. Raises Stopped where `stop` is cancelled before it comes."""
        with stop.subscribed(self._wake), self._changed:
            asked = self._queue.ask(place)
            try:
                self._changed.wait_for(lambda: stop.cancelled or (not self._busy and self._queue.first is asked))
            except BaseException:
                self._queue.leave(asked)
                raise
            if stop.cancelled:
                self._queue.leave(asked)
                self._changed.notify_all()
                raise Stopped
            self._queue.give(asked)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def charge(self, place: Place, seconds: float) -> None:
        """Say what one of the turns of `place` took in truth."""
        with self._changed:
            self._queue.charge(place, seconds)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Slots(Gate):
    """Places for work on the host's cores, given to the run that began first, of the smallest priority.

    Where cores are few, the first run so has its first chunk soon, and the engines work on that while the next run's
    frames are looked at; side by side all would wait for their first chunks together.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._runs = itertools.count()

    def of_run(self, priority: int) -> Callable[[], AbstractContextManager[None]]:
        """What a new run takes its places with, for a block each."""
        number = next(self._runs)
        return lambda: self.entered((priority, number), 1)
