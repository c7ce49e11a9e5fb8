"""A gate: room for so much at once, given by priority, and within one in the order of coming."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Gate"]


def _nothing() -> None:
    """Nothing forbids it."""


class Gate:
    """Room for `limit` in all; what is alone goes in, whatever it takes. Used from any thread.

    A large one is not passed by small ones that came later.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, ...]] = []
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """The room that is taken."""
        return sum(self._taken.values())

    @contextmanager
    def entered(
        self,
        order: tuple[int, ...],
        size: int,
        given_up: Callable[[], bool] = lambda: False,
        check: Callable[[], None] = _nothing,
    ) -> Iterator[None]:
        """Wait for room of `size` and keep it for the block. order : the smaller goes first.

        given_up : whether there is nothing more to wait for, asked again after `wake`; check : raises why.
        """
        number = next(self._numbers)
        place = (*order, number)
        with self._changed:
            self._waiting.append(place)
            try:
                self._changed.wait_for(lambda: given_up() or self._has_room(place, size))
                check()
                self._taken[number] = size
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                del self._taken[number]
                self._changed.notify_all()

    def _has_room(self, place: tuple[int, ...], size: int) -> bool:
        return min(self._waiting) == place and (not self._taken or self.taken + size <= self.limit)

    def wake(self) -> None:
        """Let those that wait look again."""
        with self._changed:
            self._changed.notify_all()
