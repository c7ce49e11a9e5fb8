"""The runs of one LipSync that are under way: what starts, cancels and closes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from weakref import WeakSet

from lsx.core.cancel import CancelToken
from lsx.core.threaded_stages import Stage, StageChain, StageTimes
from lsx.errors import Cancelled, EngineClosed, UsageError
from lsx.runtime.admission import Admission

__all__ = ["LiveRuns", "ended_by"]


class LiveRuns:
    """Knows every chain of stages that was started and not dropped, so that closing can end them."""

    def __init__(self, name: str, admission: Admission) -> None:
        """name : what is closed, for messages; admission : which runs wait before they begin."""
        self._name, self.admission = name, admission
        self._lock = threading.Lock()
        self._closed = False
        self._chains: WeakSet[StageChain] = WeakSet()

    def check(self, cancel: CancelToken | None = None) -> None:
        """Raise EngineClosed after `close`, Cancelled where `cancel` is, UsageError for what is no token."""
        if self._closed:
            raise EngineClosed(f"{self._name}: the LipSync was closed. Open it again: LipSync.open(BUNDLE)")
        if cancel is not None and not isinstance(cancel, CancelToken):
            raise UsageError(f"cancel is {cancel!r}; give a CancelToken, or leave it out")
        if cancel is not None and cancel.cancelled:
            raise _cancelled()

    def admitted(self, size: int, priority: int, cancel: CancelToken | None) -> AbstractContextManager[float]:
        """Wait until `size` bytes are free, and keep them for the block, which gets the seconds that it took.

        Raises as `check` does.
        """
        return self.admission.admitted(size, priority, cancel, lambda: self.check(cancel))

    def start(self, stages: list[Stage], times: StageTimes) -> StageChain:
        """The chain of a run. Its threads start when it is first asked for an item. Raises EngineClosed."""
        chain = StageChain(stages, times)
        with self._lock:
            self.check()
            self._chains.add(chain)
        return chain

    def close(self, free: Callable[[], None]) -> None:
        """End every run with EngineClosed, and call `free` when the last one has ended. Later calls do nothing.

        Waits for at most a chunk; on a run's own thread, which cannot wait for its own end, it does not wait.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            chains = list(self._chains)
        self.admission.close()
        for chain in chains:
            chain.abort(EngineClosed(f"{self._name}: the LipSync was closed while this run was under way"))

        def end() -> None:
            for chain in chains:
                chain.join()
            free()

        if any(chain.own_thread for chain in chains):
            threading.Thread(target=end, name="lsx-close").start()
        else:
            end()


def ended_by(cancel: CancelToken | None, chain: StageChain) -> AbstractContextManager[None]:
    """Let `cancel`, during the block, end `chain` with Cancelled."""
    return nullcontext() if cancel is None else cancel.subscribed(lambda: chain.abort(_cancelled()))


def _cancelled() -> Cancelled:
    return Cancelled("the run was cancelled; nothing was left behind")
