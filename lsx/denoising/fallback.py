"""The engines of a bundle's fallback precision: loaded when a chunk first overflows, by whichever run that is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lsx.core.sampling import SamplingOptions
from lsx.core.turns import PRIORITY
from lsx.denoising.executor import Lender
from lsx.denoising.executor_cache import ExecutorCache
from lsx.engines.engine import Engine

__all__ = ["Fallback"]


class Fallback:
    """Lends executors of the fallback to every run that needs one."""

    def __init__(
        self,
        load: Callable[[], dict[str, Engine]] | None,
        executor_cache_for: Callable[[dict[str, Engine]], ExecutorCache],
    ) -> None:
        """load : gives the engines, or None where the bundle has no fallback."""
        self._load, self._executors_for = load, executor_cache_for
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._executors: ExecutorCache | None = None

    def lender(self, options: SamplingOptions, priority: int = PRIORITY) -> Lender | None:
        """Lends one run the executors for `options`; None where there is no fallback.

        Raises EngineError.
        """
        with self._lock:
            if self._executors is None and self._load is not None:
                self._engines = self._load()
                self._executors = self._executors_for(self._engines)
            return None if self._executors is None else self._executors.lender(options, priority)

    def close(self) -> None:
        """Free what was loaded; nothing is loaded afterwards."""
        with self._lock:
            self._load = None
            if self._executors is not None:
                self._executors.close()
        for engine in self._engines.values():
            engine.close()
