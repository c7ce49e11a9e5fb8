"""Ten thousand jobs that are kept no longer: rows and files go, and the database's file is used again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lsx.serving.settings import ServeSettings
from tests.serving.served import until
from tests.torture.harness import Client, Table, database, fake_server, kind_of

__all__ = ["retention"]

_ROWS_AT_ONCE = 500
_OLD = 1  # ms since 1970
_TIMES = ("created_at", "updated_at", "completed_at", "expires_ms")

_Rows = list[tuple[sa.Table, list[dict[str, Any]]]]


def retention(table: Table, settings: ServeSettings, jobs: int = 10_000) -> None:
    """Twice `jobs` ended jobs with files and webhooks, too old; how fast they go, and what is left."""
    settings = settings.model_copy(update={"workers": "cpu:1", "allow_hook": ("127.0.0.1",), "hook_pauses": ()})
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")
        template = client.submit(0, webhook_url="http://127.0.0.1:9/")["id"]  # where nobody listens
        client.ended(template)
        with database(settings) as engine:
            until(lambda: _hooks_ended(engine, template))
        client.close()
    with database(settings) as engine:
        rows = _rows_of(engine, template) + _rows_of(engine, f"hook-{template}-completed-0")
    seconds, sizes, left = [], [], {}
    for turn in range(2):
        _plant(settings, rows, template, [f"old_{turn}_{number}" for number in range(jobs)])
        began = time.monotonic()
        with fake_server(settings.model_copy(update={"workers": "none"})), database(settings) as engine:
            until(lambda engine=engine: not _left(engine, "old_"), 1200)  # type: ignore[misc]
            until(lambda: not _files(settings), 600)
        seconds.append(time.monotonic() - began)
        with database(settings) as engine:
            left = _left(engine, "old_", "hook-old_")
            sizes.append(_size(settings, engine))
    files = _files(settings)
    grown = sizes[1] / sizes[0]
    said = (
        f"twice {jobs} jobs: gone after {seconds[0]:.0f} and {seconds[1]:.0f} s; rows left {left}, files {files}; "
        f"database {sizes[0] / 2**20:.1f}, then {sizes[1] / 2**20:.1f} MiB"
    )
    fine = not left and not files and (grown < 1.1 or kind_of(settings) == "PostgreSQL")
    table.add("retention", kind_of(settings), said, fine=fine)


def _tables(engine: sa.Engine) -> Iterator[tuple[sa.Table, str]]:
    """Every table that says of which job or workflow its rows are, in the order in which they may be filled."""
    for schema in (None,) if engine.dialect.name == "sqlite" else (None, "dbos"):
        tables = sa.MetaData()
        tables.reflect(engine, schema=schema)
        for table in tables.sorted_tables:
            if "workflow_uuid" in table.c:
                yield table, "workflow_uuid"
            elif table.name == "lsx_jobs":
                yield table, "id"


def _rows_of(engine: sa.Engine, number: str) -> _Rows:
    found = []
    with engine.connect() as connection:
        for table, key in _tables(engine):
            rows = connection.execute(sa.select(table).where(table.c[key] == number)).mappings().all()
            found.append((table, [dict(row) for row in rows]))
    return [(table, rows) for table, rows in found if rows]


def _hooks_ended(engine: sa.Engine, template: str) -> bool:
    rows = _rows_of(engine, f"hook-{template}-completed-0")
    return any(row.get("status") == "SUCCESS" for _, some in rows for row in some)


def _plant(settings: ServeSettings, rows: _Rows, template: str, numbers: list[str]) -> None:
    """The rows of the finished job again, under other ids and of long ago, with a file for each."""
    with database(settings) as engine, engine.begin() as connection:
        for first in range(0, len(numbers), _ROWS_AT_ONCE):
            for table, some in rows:
                copies = [_copy(row, template, number) for number in numbers[first:][:_ROWS_AT_ONCE] for row in some]
                connection.execute(table.insert(), copies)
    for number in numbers:
        folder = settings.data / "store" / "outputs" / number
        folder.mkdir(parents=True)
        (folder / "output.mp4").write_bytes(b"lsx" * 100)


def _copy(row: dict[str, Any], template: str, number: str) -> dict[str, Any]:
    named = {name: value.replace(template, number) if isinstance(value, str) else value for name, value in row.items()}
    return named | {name: _OLD for name in _TIMES if row.get(name) is not None}


def _left(engine: sa.Engine, *prefixes: str) -> dict[str, int]:
    """Rows by table whose job or workflow has one of these beginnings."""
    found = {}
    with engine.connect() as connection:
        for table, key in _tables(engine):
            begins = sa.or_(*(table.c[key].startswith(prefix) for prefix in prefixes))
            count = connection.execute(sa.select(sa.func.count()).select_from(table).where(begins)).scalar_one()
            if count:
                found[table.name] = int(count)
    return found


def _files(settings: ServeSettings) -> int:
    found = os.walk(settings.data / "store" / "outputs")  # which minds no folder that goes meanwhile
    return sum(len(names) for folder, _, names in found if Path(folder).name.startswith("old_"))


def _size(settings: ServeSettings, engine: sa.Engine) -> int:
    """Bytes of the database: on SQLite its files, with what is not written back yet."""
    if engine.dialect.name == "sqlite":
        return sum(path.stat().st_size for path in settings.data.glob("jobs.sqlite*"))
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())
