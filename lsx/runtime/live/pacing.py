"""The clock of a live talker: 25 frames a second, spoken ones as soon as they are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from lsx.core.clock import FPS
from lsx.runtime.live.frame import LiveFrame
from lsx.runtime.live.talker import LiveTalker

__all__ = ["paced"]

_LATE = 0.5  # seconds behind from which on the clock is set anew: a consumer that was slow gets no burst of old frames


async def paced(talker: LiveTalker, pool: Executor, lead: float = 0.2) -> AsyncIterator[LiveFrame]:
    """The talker's frames, each by its time; a spoken one up to `lead` seconds before it, at least a frame's 0.04.

    pool : whose threads wait for them. Where frames are not taken in time, all later ones are later.
    Raises EngineError, EngineClosed.
    """
    loop = asyncio.get_running_loop()
    start, number = time.perf_counter(), 0
    while True:
        due = start + number / FPS
        now = time.perf_counter()
        if now > due + _LATE:
            start, due = start + now - due, now
        if due - lead > now:
            await asyncio.sleep(due - lead - now)
        yield await loop.run_in_executor(pool, talker.take, max(due - time.perf_counter(), 0.0))
        number += 1
