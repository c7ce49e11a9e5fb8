"""The database's engine: what DBOS is told of a server that is away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from dbos._utils import retriable_postgres_exception

from lsx.serving.database import JOBS, engine_for, migrate


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
    name = f"lsx_{uuid4().hex[:12]}"
    url = sa.make_url(postgres).set(drivername="postgresql+psycopg")
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    address = url.set(database=name).render_as_string(hide_password=False)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrate, [address] * 6))
    engine = engine_for(address)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(JOBS)).scalar() == 0
    engine.dispose()
