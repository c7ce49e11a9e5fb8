"""Saying that this process lives, by the database's clock, from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from lsx.serving.database import WORKERS, now_ms

__all__ = ["beating", "pause_of", "seen_since"]

PAUSE = 10.0
"""Seconds between two beats, where nothing asks for more of them."""


def pause_of(takeover_seconds: float) -> float:
    """Seconds between two beats of a process that is given up when it is not seen for `takeover_seconds`."""
    return min(PAUSE, takeover_seconds / 4)


@contextmanager
def beating(
    engine: sa.Engine, executor: str, kind: str, facts: Callable[[], Mapping[str, Any]], pause: float = PAUSE
) -> Iterator[None]:
    """Beat at once, and then every `pause` seconds until the block ends; then this process is one no more."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            with suppress(sa.exc.SQLAlchemyError):  # the database is away: it is seen again when that is back
                _beat(engine, executor, kind, dict(facts()))
            if stop.wait(pause):
                return

    _beat(engine, executor, kind, dict(facts()))
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(sa.exc.SQLAlchemyError), engine.begin() as connection:
            connection.execute(WORKERS.delete().where(WORKERS.c.executor == executor))


def _beat(engine: sa.Engine, executor: str, kind: str, facts: dict[str, Any]) -> None:
    with engine.begin() as connection:
        values = {"kind": kind, "facts": facts, "seen_ms": now_ms(connection)}
        if not connection.execute(WORKERS.update().where(WORKERS.c.executor == executor).values(**values)).rowcount:
            connection.execute(WORKERS.insert().values(executor=executor, **values))


def seen_since(connection: sa.Connection, seconds: float, kind: str | None = None) -> list[Any]:
    """The rows of `WORKERS` that were seen in the last `seconds`."""
    query = sa.select(WORKERS).where(WORKERS.c.seen_ms >= now_ms(connection) - int(seconds * 1000))
    return list(connection.execute(query if kind is None else query.where(WORKERS.c.kind == kind)))
