"""The database's engine: what DBOS is told of a server that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from dbos._error import DBOSException
from dbos._utils import retriable_postgres_exception

from lsx.serving.database import JOBS, engine_for, migrate
from lsx.serving.gpu_queue import GpuQueue, Owner
from lsx.serving.job_book import JobBook
from lsx.serving.keeper import Keeper
from lsx.serving.serve_metrics import ServeMetrics
from lsx.serving.settings import ServeSettings
from lsx.serving.store import store_at
from tests.serving.databases import new_database


def test_a_server_that_cannot_be_reached_is_waited_for(tmp_path: Path) -> None:
    """DBOS itself ends a job at this error, whose text it does not know."""
    engine = engine_for(f"postgresql+psycopg://me@/lsx?host={tmp_path}")
    with pytest.raises(sa.exc.OperationalError) as error:
        engine.connect()
    assert retriable_postgres_exception(error.value)
    engine.dispose()


def test_a_transaction_of_a_machine_that_is_gone_ends(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had locked is another's then; DBOS does its part again, should the machine come back."""
    monkeypatch.setattr("lsx.serving.database._STANDING_MS", 100)
    lock = sa.text("SELECT pg_advisory_xact_lock(7)")
    engine = engine_for(postgres.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as gone:
        gone.execute(lock)
        with engine.begin() as other:
            other.execute(sa.text("SET LOCAL lock_timeout = '30s'"))
            other.execute(lock)
        with pytest.raises(sa.exc.DBAPIError) as error:
            gone.execute(lock)
        assert retriable_postgres_exception(error.value)
        gone.rollback()
        gone.execute(lock)
    engine.dispose()


def test_machines_that_start_at_once_make_one_set_of_tables(postgres: str) -> None:
    address = new_database(postgres)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrate, [address] * 6))
    engine = engine_for(address)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(JOBS)).scalar() == 0
    engine.dispose()


@pytest.fixture
def plans(settings: ServeSettings) -> Iterator[Callable[[Callable[[sa.Engine], Any]], str]]:
    """How PostgreSQL looks for the jobs of all statements that something makes, where it may use any index."""
    engine = engine_for(str(settings.database))
    with engine.begin() as connection:
        row = {"id": "job_1", "owner": "anna", "fingerprint": "", "request": {}, "priority": 5, "created_ms": 1}
        connection.execute(JOBS.insert(), row | {"attempts": 0, "finished_ms": 2, "announced": "COMPLETED"})

    def plans(look: Callable[[sa.Engine], Any]) -> str:
        asked: list[tuple[str, Any]] = []

        @sa.event.listens_for(engine, "before_cursor_execute")
        def _note(_connection: Any, _cursor: Any, statement: str, given: Any, *_: Any) -> None:
            if "FROM lsx_jobs" in statement and not statement.startswith("EXPLAIN"):
                asked.append((statement, given))

        look(engine)
        sa.event.remove(engine, "before_cursor_execute", _note)
        assert asked
        with engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            told = [connection.exec_driver_sql(f"EXPLAIN {text}", given).scalars().all() for text, given in asked]
        return "\n".join(line for lines in told for line in lines)

    yield plans
    engine.dispose()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_looks_often_looks_at_no_job_that_has_ended(
    settings: ServeSettings, plans: Callable[[Callable[[sa.Engine], Any]], str]
) -> None:
    """By an index that has no others: of those that ended there are millions."""

    settings.data.mkdir()

    def keeper(engine: sa.Engine) -> Keeper:
        return Keeper(settings, engine, store_at(None, settings.data))

    def places(engine: sa.Engine) -> None:
        waiting = SimpleNamespace(id="job_1", priority=5, created_ms=1, started_ms=None, finished_ms=None)
        GpuQueue(engine, settings).places([waiting])
        GpuQueue(engine, settings).places([waiting, waiting])

    def removal(engine: sa.Engine) -> None:
        with pytest.raises(DBOSException):  # which webhooks need, later on
            keeper(engine).remove_old()

    found = plans(lambda engine: keeper(engine).sweep())
    assert "lsx_jobs_untold" in found
    assert "Seq Scan on lsx_jobs" not in found
    found = plans(places)
    assert found.count("lsx_jobs_waiting") == 2
    assert "Seq Scan on lsx_jobs" not in found
    found = plans(lambda engine: ServeMetrics(engine).text())
    assert "lsx_jobs_waiting" in found  # the oldest
    assert found.count("Seq Scan on lsx_jobs") == 0
    found = plans(lambda engine: JobBook(engine, settings).page(Owner("bob", 5), None, 10, None))
    assert "lsx_jobs_of_owner" in found
    assert "Sort" not in found
    assert "ix_lsx_jobs_expires_ms" in plans(removal)


def test_a_database_of_an_older_lsx_gets_its_indexes(database: str) -> None:
    migrate(database)
    engine = engine_for(database)
    wanted = {index["name"] for index in sa.inspect(engine).get_indexes("lsx_jobs")}
    with engine.begin() as connection:
        for name in ("lsx_jobs_untold", "lsx_jobs_waiting"):
            connection.execute(sa.text(f"DROP INDEX {name}"))
    migrate(database)
    migrate(database)
    assert {index["name"] for index in sa.inspect(engine).get_indexes("lsx_jobs")} == wanted
    assert wanted >= {"lsx_jobs_untold", "lsx_jobs_waiting", "lsx_jobs_of_owner"}
    engine.dispose()


def test_ended_jobs_are_counted_rarely_where_that_takes_long(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(str(settings.database))
    metrics = ServeMetrics(engine)

    def ended(number: int) -> bool:
        row = {"id": f"job_{number}", "owner": "anna", "fingerprint": "", "request": {}, "priority": 5, "created_ms": 1}
        with engine.begin() as connection:
            connection.execute(JOBS.insert(), row | {"attempts": 0, "finished_ms": 2, "announced": "COMPLETED"})
        return f'lsx_jobs{{status="COMPLETED"}} {number}.0' in metrics.text().decode()

    assert ended(1)
    assert ended(2)
    monkeypatch.setattr("lsx.serving.serve_metrics._LONG", -1.0)
    monkeypatch.setattr("lsx.serving.serve_metrics._PAUSES", 10**6)
    assert ended(3)
    assert not ended(4)
    engine.dispose()
