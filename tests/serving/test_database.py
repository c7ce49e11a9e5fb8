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
