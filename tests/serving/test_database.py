"""The database's engine: what DBOS is told of a server that is away."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos._utils import retriable_postgres_exception

from lsx.serving.database import engine_for


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
