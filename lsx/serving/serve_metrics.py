"""What Prometheus is told: this process's requests, and what the database says of jobs and workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lsx.serving.database import AVATARS, JOBS, PREPARATIONS, WORKERS, now_ms

__all__ = ["ServeMetrics"]

_STATUSES = ("PENDING", "PROCESSING", "COMPLETED", "REJECTED", "FAILED", "CANCELED")
_LONG, _PAUSES = 0.1, 20  # seconds of a look that is not made each time, and how many times as long it is not made
_TOTALS = {
    "jobs": "Jobs that a worker ended since it began",
    "frames": "Frames that a worker made since it began",
    "render_seconds": "Seconds that a worker rendered since it began",
}


class ServeMetrics:
    """Counts requests, and reads the rest when it is asked."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock, self._look_again = threading.Lock(), 0.0
        self._seen: dict[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.requests = Counter(
            "lsx_requests_total", "Requests", ["method", "route", "status"], registry=self._registry
        )
        self.seconds = Histogram("lsx_request_seconds", "Seconds to an answer", ["route"], registry=self._registry)

    def text(self) -> bytes:
        """In Prometheus's format. Raises SQLAlchemyError where the database is away."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what `collect` gives needs the database, which may not be there yet."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What the database says now."""
        with self._engine.connect() as connection:
            now = now_ms(connection)
            yield self._jobs(connection)
            yield _avatars(connection)
            yield self._oldest(connection, now)
            yield from _workers(connection, now)

    def _jobs(self, connection: sa.Connection) -> Metric:
        counted = dict(self._ended(connection))
        there = sa.select(sa.func.count(JOBS.c.started_ms), sa.func.count()).where(JOBS.c.finished_ms.is_(None))
        begun, both = connection.execute(there).one()
        counted.update(PENDING=both - begun, PROCESSING=begun + counted.get("PROCESSING", 0))
        family = GaugeMetricFamily("lsx_jobs", "Jobs that are kept, by status", labels=["status"])
        for name in _STATUSES:
            family.add_metric([name], counted.get(name, 0))
        return family

    def _ended(self, connection: sa.Connection) -> dict[str, int]:
        """How many of each status have ended. Where there are so many that a look takes long, it is made rarely."""
        with self._lock:
            now = time.monotonic()
            if now >= self._look_again:
                status = sa.func.coalesce(JOBS.c.announced, sa.literal_column("'PROCESSING'"))
                query = sa.select(status, sa.func.count()).where(JOBS.c.finished_ms.is_not(None)).group_by(status)
                self._seen = {str(name): int(count) for name, count in connection.execute(query)}
                took = time.monotonic() - now
                self._look_again = now + (_PAUSES * took if took > _LONG else 0.0)
            return self._seen

    def _oldest(self, connection: sa.Connection, now: int) -> Metric:
        waiting = [
            sa.select(sa.func.min(table.c.created_ms)).where(
                table.c.started_ms.is_(None), table.c.finished_ms.is_(None)
            )
            for table in (JOBS, AVATARS)
        ]
        oldest = min(filter(None, (connection.execute(query).scalar() for query in waiting)), default=None)
        value = 0.0 if oldest is None else (now - oldest) / 1000
        return GaugeMetricFamily(
            "lsx_queue_oldest_seconds", "How long the oldest waiting job or avatar has waited", value=value
        )


def _avatars(connection: sa.Connection) -> Metric:
    ready = sa.exists().where(PREPARATIONS.c.avatar == AVATARS.c.id)
    status = sa.case(
        (ready, "READY"),
        (AVATARS.c.finished_ms.is_not(None), "FAILED"),
        (AVATARS.c.started_ms.is_not(None), "PROCESSING"),
        else_="PENDING",
    )
    rows = connection.execute(sa.select(status.label("status"), sa.func.count()).group_by(sa.text("status")))
    counted = {str(name): int(count) for name, count in rows}
    family = GaugeMetricFamily("lsx_avatars", "Avatars that are kept, by status", labels=["status"])
    for name in ("PENDING", "PROCESSING", "READY", "FAILED"):
        family.add_metric([name], counted.get(name, 0))
    return family


def _workers(connection: sa.Connection, now: int) -> Iterator[Metric]:
    rows = connection.execute(sa.select(WORKERS).where(WORKERS.c.kind == "worker")).all()
    seen = GaugeMetricFamily("lsx_worker_seen_seconds", "Since a worker was seen", labels=["executor"])
    for row in rows:
        seen.add_metric([row.executor], (now - row.seen_ms) / 1000)
    yield seen
    for name, said in _TOTALS.items():
        family = CounterMetricFamily(f"lsx_worker_{name}", said, labels=["executor"])
        for row in rows:
            family.add_metric([row.executor], float(row.facts.get("totals", {}).get(name, 0)))
        yield family
