"""The queue of which workers take jobs and avatars: its bound, its places, and what DBOS is told of both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus

from lsx.serving.database import AVATARS, JOBS, now_text, reader
from lsx.serving.idempotency import check_same
from lsx.serving.job_checks import check_assets, rows_of_assets
from lsx.serving.problems import queue_full
from lsx.serving.settings import ServeSettings

__all__ = ["APPLICATION", "GPU_QUEUE", "VERSION", "Entry", "GpuQueue", "Owner", "Placed", "dbos_client", "longest"]

APPLICATION, VERSION = "lsx", "lsx-jobs-1"
"""DBOS's names; the version changes when the order of a workflow's steps does."""
GPU_QUEUE = "gpu"

_RETRY_SECONDS = 10
_APART = 200  # places that must be left where they are given side by side: more than all HTTP processes give at once


class _Turn(IntEnum):
    """Beside whom an entry gets its place."""

    BESIDE_ALL = 0
    BESIDE_OTHER_OWNERS = 1
    ALONE = 2


# PostgreSQL's locks of those who take a place in the queue: of all, of the owner's, and of that very entry.
_LOCKS = {
    turn: sa.text(
        f"SELECT pg_advisory_xact_lock{everybody}(7205118), pg_advisory_xact_lock{own}(7205118, hashtext(:owner)), "
        "pg_advisory_xact_lock(7205120, hashtext(:number))"
    )
    for turn, everybody, own in (
        (_Turn.BESIDE_ALL, "_shared", "_shared"),
        (_Turn.BESIDE_OTHER_OWNERS, "_shared", ""),
        (_Turn.ALONE, "", ""),
    )
}


class _Crowded(Exception):
    """So few places are left that this one must be given in turn."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a request is."""

    id: str
    most_queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What asks for a place: a job or an avatar."""

    table: sa.Table
    workflow: str
    number: str
    owner: Owner
    fingerprint: str
    """Of the request; the number's row may be there already."""
    priority: int
    assets: Mapping[str, str]
    """The ids of the uploads that it needs, with the kind that each is used as."""
    columns: Callable[[Mapping[str, Any]], dict[str, Any]]
    """The columns of its own kind, of the uploads' rows by their ids."""
    seconds: float = 0.0
    """Of its longest input that is no upload."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A row as it was entered, and its place among those that wait, from 1 on."""

    row: Any
    place: int


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


def _seen(connection: sa.Connection, entry: Entry) -> sa.Select[Any]:
    """All that is looked at before an entry gets its place: the time, its own row, and who is there already."""
    before = sa.select(entry.table.c.fingerprint).where(entry.table.c.id == entry.number).scalar_subquery()
    now: Any = sa.literal_column(now_text(connection)).label("now")
    jobs, avatars = (_there(entry, table, name) for table, name in ((JOBS, "jobs"), (AVATARS, "avatars")))
    both = jobs.join(avatars, sa.true())
    return sa.select(now, before.label("fingerprint"), *jobs.c, *avatars.c).select_from(both)


def _there(entry: Entry, table: sa.Table, name: str) -> sa.Subquery:
    """How many wait or run, how many of these are the entry's owner's, and how many will be started before it."""
    own, ahead = table.c.owner == entry.owner.id, table.c.started_ms.is_(None) & (table.c.priority <= entry.priority)
    counts = sa.func.count().label(name), _count_of(own).label(f"{name}_own"), _count_of(ahead).label(f"{name}_ahead")
    return sa.select(*counts).where(table.c.finished_ms.is_(None)).subquery(f"{name}_there")


def _count_of(condition: Any) -> Any:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


def _turn_for(left: int, left_of_owner: int) -> _Turn:
    """Beside whom a place may be given while so many are left."""
    if left <= _APART:
        return _Turn.ALONE
    return _Turn.BESIDE_OTHER_OWNERS if left_of_owner <= _APART else _Turn.BESIDE_ALL


class GpuQueue:
    """Places for jobs and avatars of all owners. Used from any thread."""

    def __init__(self, engine: sa.Engine, settings: ServeSettings) -> None:
        self.engine, self.settings = engine, settings
        self.reader = reader(engine)
        self.client = dbos_client(engine)
        self._told = dbos_client(self.reader)
        # SQLite has one writer: those of this process wait in turn, and not for a lock that they poll.
        self._turn: Any = threading.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction."""
        with self._turn, self.engine.begin() as connection:
            yield connection

    def take(self, entry: Entry) -> Placed | None:
        """Give an entry its row and its place, in one transaction.

        None where the same request did so before. While there is room for many, places are given side by side: a
        transaction lasts until the disk has it. Near a bound they are given in turn, and it is exact. Raises
        ApiProblem.
        """
        bounds = self.settings.max_queued, entry.owner.most_queued
        turn = _turn_for(*bounds) if self.engine.dialect.name == "postgresql" else _Turn.ALONE
        while True:
            with suppress(_Crowded), self.writing() as connection:
                return self._taken(connection, entry, turn)
            turn = _Turn(turn + 1)

    def _taken(self, connection: sa.Connection, entry: Entry, turn: _Turn) -> Placed | None:
        rows = rows_of_assets(connection, entry.assets)
        if connection.dialect.name == "postgresql":  # others may wait from here on: as few statements as can be
            connection.execute(_LOCKS[turn], {"owner": entry.owner.id, "number": entry.number})
        seen = connection.execute(_seen(connection, entry)).one()
        if seen.fingerprint is not None:
            check_same(seen.fingerprint, entry.fingerprint)
            return None
        left = self.settings.max_queued - seen.jobs - seen.avatars
        if turn < _turn_for(left, entry.owner.most_queued - seen.jobs_own - seen.avatars_own):
            raise _Crowded
        assets = check_assets(rows, entry.owner.id, entry.assets)
        self._check_room(entry.owner, seen)
        row = {
            "id": entry.number,
            "owner": entry.owner.id,
            "fingerprint": entry.fingerprint,
            "priority": entry.priority,
            "created_ms": seen.now,
            **entry.columns(assets),
        }
        entered = connection.execute(entry.table.insert().returning(*entry.table.c), row).one()
        self._enqueue(connection, entry, max(longest(assets.values()), entry.seconds))
        return Placed(entered, seen.jobs_ahead + seen.avatars_ahead + 1)

    def _check_room(self, owner: Owner, seen: Any) -> None:
        """Raise ApiProblem where the queue, or the owner's share of it, is full. seen : `_seen`'s row."""
        own = seen.jobs_own + seen.avatars_own
        if seen.jobs + seen.avatars >= self.settings.max_queued:
            raise queue_full("the queue is full; try again later", "queue_full", _RETRY_SECONDS)
        if own >= owner.most_queued:
            detail = f"this key has {own} jobs that wait or run, as many as it may; try again when one has ended"
            raise queue_full(detail, "quota_reached", _RETRY_SECONDS)

    def _enqueue(self, connection: sa.Connection, entry: Entry, seconds: float) -> None:
        """Give its workflow a place, in the caller's transaction. seconds : of its longest input."""
        deadline = self.settings.deadline_seconds + self.settings.deadline_factor * seconds
        options = EnqueueOptions(
            workflow_name=entry.workflow,
            queue_name=GPU_QUEUE,
            workflow_id=entry.number,
            app_version=VERSION,
            workflow_timeout=deadline,
            priority=entry.priority,
        )
        self.client.enqueue_in_transaction(connection, options, entry.number)

    def workflows(self, numbers: Sequence[str]) -> dict[str, WorkflowStatus]:
        """What DBOS says of each of these that it knows, without its input."""
        found = self._told.list_workflows(workflow_ids=list(numbers), load_input=False, limit=len(numbers))
        return {workflow.workflow_id: workflow for workflow in found}

    def places(self, rows: Sequence[Any]) -> dict[str, int]:
        """Which place in the queue each of these jobs or avatars has that waits, from 1 on."""
        asked = [row for row in rows if row.started_ms is None and row.finished_ms is None]
        if not asked:
            return {}
        with self.reader.connect() as connection:
            if len(asked) == 1:
                return {asked[0].id: 1 + self._before(connection, asked[0])}
            waiting: list[tuple[int, int, str]] = []
            for table in (JOBS, AVATARS):
                query = sa.select(table.c.priority, table.c.created_ms, table.c.id)
                waiting += [tuple(row) for row in connection.execute(query.where(*_waits(table)))]
        return {number: place for place, (_, _, number) in enumerate(sorted(waiting), 1)}

    def _before(self, connection: sa.Connection, row: Any) -> int:
        """How many wait before it."""
        place, counts = sa.tuple_(row.priority, row.created_ms, row.id), []
        for table in (JOBS, AVATARS):
            earlier = sa.tuple_(table.c.priority, table.c.created_ms, table.c.id) < place
            counts.append(sa.select(sa.func.count()).select_from(table).where(*_waits(table), earlier))
        return sum(connection.execute(sa.select(*(count.scalar_subquery() for count in counts))).one())

    def cancel(self, number: str) -> None:
        """End a workflow; one that runs learns it at its next mark."""
        with self._turn:
            self.client.cancel_workflow(number)

    def forget(self, numbers: Sequence[str]) -> None:
        """Remove workflows from the database."""
        with self._turn:
            self.client.delete_workflows(list(numbers))
