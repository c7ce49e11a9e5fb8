"""Turns: runs that share engines use them one at a time, a chunk each, in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from lsx.core.cancel import CancelToken
from lsx.core.threaded_stages import Stopped

__all__ = ["Turns"]


class Turns:
    """A lock that is given in the order of the asking, so that no run starves beside a faster one.

    A plain lock is mostly taken again by the thread that just gave it back.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._busy = False

    @contextmanager
    def taken(self, stop: CancelToken) -> Iterator[None]:
        """Wait for a turn and keep it for the block. Raises Stopped where `stop` is cancelled before it comes."""
        place = object()
        with stop.subscribed(self._wake), self._changed:
            self._waiting.append(place)
            try:
                self._changed.wait_for(lambda: stop.cancelled or (not self._busy and self._waiting[0] is place))
                if stop.cancelled:
                    raise Stopped
                self._busy = True
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
