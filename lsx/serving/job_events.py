"""Jobs as they change, for all who watch: one poller asks the database, however many there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress

import anyio

from lsx.serving.problems import queue_full
from lsx.serving.schemas import Job
from lsx.serving.statuses import TERMINAL

__all__ = ["JobEvents"]

_PAUSE = 0.5
_RETRY_SECONDS = 10


class JobEvents:
    """Hands out the states of watched jobs. Used on one event loop."""

    def __init__(self, snapshot: Callable[[Iterable[str]], Mapping[str, Job]], most: int) -> None:
        """most : streams of one owner at once."""
        self._snapshot, self._most = snapshot, most
        self._watched: Counter[str] = Counter()
        self._owners: Counter[str] = Counter()
        self._latest: dict[str, Job | None] = {}
        self._round = asyncio.Condition()

    async def poll(self) -> None:
        """Ask for the watched jobs twice a second, as long as the server lives."""
        while True:
            await asyncio.sleep(_PAUSE)
            if not self._watched:
                continue
            ids = list(self._watched)
            with suppress(Exception):  # the database is away: the streams say nothing meanwhile
                found = await anyio.to_thread.run_sync(self._snapshot, ids)
                async with self._round:
                    self._latest = {number: found.get(number) for number in ids}
                    self._round.notify_all()

    def enter(self, owner: str, number: str) -> None:
        """Count a stream of an owner's, on a job, until `leave`. Raises ApiProblem for one too many."""
        if self._owners[owner] >= self._most:
            raise queue_full(f"at most {self._most} event streams at once", "too_many_streams", _RETRY_SECONDS)
        self._owners[owner] += 1
        self._watched[number] += 1

    def leave(self, owner: str, number: str) -> None:
        """Give the place of a stream free, whether or not anything was sent on it."""
        self._owners[owner] -= 1
        self._watched[number] -= 1
        self._owners += Counter()  # without what is 0
        self._watched += Counter()

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """`job`, and what becomes of it, each state once, until it has ended or is removed; after `enter`."""
        yield job
        while job.status not in TERMINAL:
            async with self._round:
                await self._round.wait()
                latest = self._latest.get(job.id, job)
            if latest is None:
                return
            if latest != job:
                job = latest
                yield job
