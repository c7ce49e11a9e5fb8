"""The queue of which workers take jobs and avatars: its bound, its places, and what DBOS is told of both."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions

from lsx.serving.database import AVATARS, JOBS
from lsx.serving.problems import queue_full
from lsx.serving.settings import ServeSettings

__all__ = ["APPLICATION", "GPU_QUEUE", "VERSION", "GpuQueue", "Owner", "dbos_client", "longest"]

APPLICATION, VERSION = "lsx", "lsx-jobs-1"
"""DBOS's names; the version changes when the order of a workflow's steps does."""
GPU_QUEUE = "gpu"

_LOCK = 7_205_118  # PostgreSQL's advisory lock of those who take a place in the queue
_RETRY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a request is."""

    id: str
    most_queued: int


def dbos_client(engine: sa.Engine) -> DBOSClient:
    """A client that runs no workflow, and says at once where the database is away."""
    return DBOSClient(
        system_database_engine=engine,
        serializer=DBOSPortableJSONSerializer(),
        application_name=APPLICATION,
        lazy=True,
        retry_connection_errors=False,
    )


def longest(media: Iterable[Any]) -> float:
    """Seconds of the longest of rows with `facts`; 0 of none."""
    return max((float(one.facts["duration"]) for one in media), default=0.0)


def _waits(table: sa.Table) -> tuple[Any, Any]:
    return table.c.started_ms.is_(None), table.c.finished_ms.is_(None)


class GpuQueue:
    """Places for jobs and avatars of all owners. Used from any thread."""

    def __init__(self, engine: sa.Engine, settings: ServeSettings) -> None:
        self.engine, self.settings = engine, settings
        self.client = dbos_client(engine)
        # SQLite has one writer: those of this process wait in turn, and not for a lock that they poll.
        self._turn: Any = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction."""
        with self._turn, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def placing(self) -> Iterator[sa.Connection]:
        """A transaction in which nobody else takes a place."""
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            yield connection

    def check_room(self, connection: sa.Connection, owner: Owner) -> None:
        """Raise ApiProblem where the queue, or the owner's share of it, is full."""
        every = own = 0
        for table in (JOBS, AVATARS):
            mine = sa.func.sum(sa.case((table.c.owner == owner.id, 1), else_=0))
            counts = sa.select(sa.func.count(), mine).where(table.c.finished_ms.is_(None))
            found, found_own = connection.execute(counts).one()
            every, own = every + found, own + (found_own or 0)
        if every >= self.settings.max_queued:
            raise queue_full("the queue is full; try again later", "queue_full", _RETRY_SECONDS)
        if own >= owner.most_queued:
            detail = f"this key has {own} jobs that wait or run, as many as it may; try again when one has ended"
            raise queue_full(detail, "quota_reached", _RETRY_SECONDS)

    def enqueue(self, connection: sa.Connection, workflow: str, number: str, priority: int, seconds: float) -> None:
        """Give a workflow its place, in the caller's transaction. seconds : of its longest input."""
        deadline = self.settings.deadline_seconds + self.settings.deadline_factor * seconds
        options = EnqueueOptions(
            workflow_name=workflow,
            queue_name=GPU_QUEUE,
            workflow_id=number,
            app_version=VERSION,
            workflow_timeout=deadline,
            priority=priority,
        )
        self.client.enqueue_in_transaction(connection, options, number)

    def places(self, rows: Sequence[Any]) -> dict[str, int]:
        """Which place in the queue each of these jobs or avatars has that waits, from 1 on."""
        asked = [row for row in rows if row.started_ms is None and row.finished_ms is None]
        if not asked:
            return {}
        with self.engine.connect() as connection:
            if len(asked) == 1:
                return {asked[0].id: 1 + self._before(connection, asked[0])}
            waiting: list[tuple[int, int, str]] = []
            for table in (JOBS, AVATARS):
                query = sa.select(table.c.priority, table.c.created_ms, table.c.id)
                waiting += [tuple(row) for row in connection.execute(query.where(*_waits(table)))]
        return {number: place for place, (_, _, number) in enumerate(sorted(waiting), 1)}

    def _before(self, connection: sa.Connection, row: Any) -> int:
        """How many wait before it."""
        place = (row.priority, row.created_ms, row.id)
        count = 0
        for table in (JOBS, AVATARS):
            earlier = sa.tuple_(table.c.priority, table.c.created_ms, table.c.id) < sa.tuple_(*place)
            query = sa.select(sa.func.count()).select_from(table).where(*_waits(table), earlier)
            count += connection.execute(query).scalar_one()
        return count

    def cancel(self, number: str) -> None:
        """End a workflow; one that runs learns it at its next mark."""
        with self._turn:
            self.client.cancel_workflow(number)

    def forget(self, numbers: Sequence[str]) -> None:
        """Remove workflows from the database."""
        with self._turn:
            self.client.delete_workflows(list(numbers))
