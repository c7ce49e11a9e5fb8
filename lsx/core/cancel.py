"""Cancelling: a token that one thread sets and others look at, or are told by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["CancelToken"]


class CancelToken:
    """Tells whoever was given it to stop. `cancel` may be called from any thread, any number of times.

    One token may be given to several runs: all of them end. A cancelled token stays so; take a new one for new runs.

    Examples
    --------
    >>> token = CancelToken()
    >>> token.cancelled
    False
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may end a dropped run's subscription while it is held
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called.

        Examples
        --------
        >>> CancelToken().cancelled
        False
        """
        return self._cancelled

    def cancel(self) -> None:
        """Tell everybody to stop. Returns at once; a run that was given this token ends within one chunk.

        Examples
        --------
        >>> token = CancelToken()
        >>> token.cancel()
        >>> token.cancelled
        True
        """
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():  # outside the lock: they may take others
            callback()

    @contextmanager
    def subscribed(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` when this is cancelled during the block; at once where it already is.

        It is called on the thread that cancels, and must return quickly.

        Examples
        --------
        >>> token = CancelToken()
        >>> with token.subscribed(lambda: print("told")):
        ...     token.cancel()
        told
        """
        key = object()
        with self._lock:
            cancelled = self._cancelled
            if not cancelled:
                self._callbacks[key] = callback
        if cancelled:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)
