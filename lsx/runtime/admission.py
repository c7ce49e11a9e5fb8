"""Admission: runs over files wait to begin until the memory for their frames is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from lsx.core.cancel import CancelToken
from lsx.core.gate import Gate
from lsx.core.host_memory import available_bytes
from lsx.errors import UsageError

__all__ = ["Admission"]

_UNKNOWN = 4 << 30
_SHARE = 0.5


class Admission(Gate):
    """Bytes that the runs of one LipSync may take together; a run that is alone begins, whatever it takes.

    Runs begin by priority, and within one in the order in which they came: a large one is not passed by small ones.
    """

    def __init__(self, limit: int | None = None) -> None:
        """limit : default half of what is free here now. Raises UsageError."""
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise UsageError(f"run_memory is {limit!r}; give bytes, a whole number from 1 on, or leave it out")
        free = available_bytes() if limit is None else None
        super().__init__(limit or int(_SHARE * free if free else _UNKNOWN))
        self._closed = False

    @contextmanager
    def admitted(
        self, size: int, priority: int, cancel: CancelToken | None, check: Callable[[], None]
    ) -> Iterator[float]:
        """Wait until `size` bytes are free and keep them for the block, which gets the seconds that it took.

        check : raises why a run does not begin, once `cancel` was cancelled or this closed.
        """
        began = time.perf_counter()

        def given_up() -> bool:
            return self._closed or (cancel is not None and cancel.cancelled)

        told = nullcontext() if cancel is None else cancel.subscribed(self.wake)
        with told, self.entered((priority,), size, given_up, check):
            yield time.perf_counter() - began

    def close(self) -> None:
        """Let those that wait look again, and end."""
        self._closed = True
        self.wake()
