"""Admission: runs over files wait to begin until the memory for their frames is free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count

from lsx.core.cancel import CancelToken
from lsx.core.host_memory import available_bytes
from lsx.errors import UsageError

__all__ = ["Admission"]

_UNKNOWN = 4 << 30
_SHARE = 0.5


class Admission:
    """Bytes that the runs of one LipSync may take together; a run that is alone begins, whatever it takes.

    Runs begin by priority, and within one in the order in which they came: a large one is not passed by small ones.
    """

    def __init__(self, limit: int | None = None) -> None:
        """limit : default half of what is free here now. Raises UsageError."""
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise UsageError(f"run_memory is {limit!r}; give bytes, a whole number from 1 on, or leave it out")
        free = available_bytes() if limit is None else None
        self.limit = limit or int(_SHARE * free if free else _UNKNOWN)
        self._changed = threading.Condition()
        self._closed = False
        self._numbers = count()
        self._waiting: list[tuple[int, int]] = []
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """Bytes of the runs that have begun."""
        return sum(self._taken.values())

    @contextmanager
    def admitted(
        self, size: int, priority: int, cancel: CancelToken | None, check: Callable[[], None]
    ) -> Iterator[float]:
        """Wait until `size` bytes are free and keep them for the block, which gets the seconds that it took.

        check : raises why a run does not begin, once `cancel` was cancelled or this closed.
        """
        began = time.perf_counter()
        number = next(self._numbers)
        place = (priority, number)
        subscribed = nullcontext() if cancel is None else cancel.subscribed(self._wake)
        with subscribed, self._changed:
            self._waiting.append(place)
            try:
                self._changed.wait_for(lambda: self._ended(cancel) or self._may_begin(place, size))
                check()
                self._taken[number] = size
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
        try:
            yield time.perf_counter() - began
        finally:
            with self._changed:
                del self._taken[number]
                self._changed.notify_all()

    def _ended(self, cancel: CancelToken | None) -> bool:
        return self._closed or (cancel is not None and cancel.cancelled)

    def _may_begin(self, place: tuple[int, int], size: int) -> bool:
        return min(self._waiting) == place and (not self._taken or self.taken + size <= self.limit)

    def close(self) -> None:
        """Let those that wait look again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
