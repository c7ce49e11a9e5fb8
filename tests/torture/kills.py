"""Random kill -9 of every process in the midst of jobs: none is lost, none is made twice."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from lsx.serving.database import ASSETS, JOBS
from lsx.serving.settings import ServeSettings
from tests.serving.served import Served, until
from tests.torture.harness import (
    HTTP,
    KEEPER,
    WORKER,
    Client,
    Table,
    database,
    fake_server,
    kind_of,
    outputs_of,
    unfinished,
)

__all__ = ["Storm", "kills"]

_AHEAD = 8  # jobs that are asked for before the first kill, where they are spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """How much is asked of a server, and what is done to it meanwhile."""

    jobs: int
    kills: int
    """At most."""
    pause: float
    """Seconds between two kills, on average."""
    seconds: float = 780.0
    """After so long no more is asked and nothing killed; what waits is then made within two minutes."""
    queued: int = 500
    """Jobs that wait at most: clients wait for a place."""
    workers: str = "cpu:2"
    spread: bool = False
    """Whether the jobs are spread over the kills: none is asked for before its share of them."""
    lengths: tuple[int, ...] = (0, 0, 2, 30)
    """Hundredths of a second that jobs take, by lot."""


class _Killer:
    """Kills random processes of a server until it is told to stop."""

    def __init__(self, served: Served, pause: Callable[[], float], storm: Storm) -> None:
        self.kills: Counter[str] = Counter()
        self._served, self._pause, self._storm = served, pause, storm
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        choose, end = random.Random(0), time.monotonic() + self._storm.seconds
        while self.kills.total() < self._storm.kills and not self._stop.wait(self._pause()):
            module = choose.choices((WORKER, KEEPER, HTTP), (6, 1, 2))[0]
            found = self._served.processes(module)
            if found and time.monotonic() < end:
                with suppress(ProcessLookupError):
                    os.kill(choose.choice(found), signal.SIGKILL)
                    self.kills[module.rpartition(".")[2]] += 1

    def may_come(self, place: int) -> bool:
        """Whether there were as many kills as the job of a place waits for; the last one waits for all."""
        storm = self._storm
        ahead = min(_AHEAD, storm.jobs - 1)
        return not storm.spread or self.kills.total() >= storm.kills * (place + 1 - ahead) / (storm.jobs - ahead)

    def stop(self) -> None:
        """No more kills."""
        self._stop.set()
        self._thread.join()


def _statuses(connection: sa.Connection) -> dict[str, str]:
    """What DBOS has of each job's workflow."""
    prefix = "" if connection.dialect.name == "sqlite" else "dbos."
    statement = sa.text(f"SELECT workflow_uuid, status FROM {prefix}workflow_status WHERE name = 'lipsync'")  # noqa: S608
    return {row[0]: row[1] for row in connection.execute(statement)}


def _counted(settings: ServeSettings, numbers: list[str]) -> dict[str, Any]:
    """What the database and the store say in the end, asked without the server."""
    with database(settings) as engine, engine.connect() as connection:
        statuses = _statuses(connection)
        attempts = connection.execute(sa.select(sa.func.sum(JOBS.c.attempts))).scalar()
        sound = (
            connection.execute(sa.text("PRAGMA integrity_check")).scalar() if engine.dialect.name == "sqlite" else "ok"
        )
        uploads = connection.execute(sa.select(sa.func.count()).select_from(ASSETS)).scalar_one()
    files = sum(path.is_file() for path in (settings.data / "store").rglob("*"))
    return {
        "unnamed": files - uploads - len(numbers),
        "lost": sum(number not in statuses for number in numbers),
        "statuses": Counter(statuses.values()),
        "outputs": Counter(len(outputs_of(settings, number)) for number in numbers),
        "attempts": int(attempts or 0),
        "integrity": sound,
    }


def _submitted(client: Client, seeds: list[int], end: float, may_come: Callable[[int], bool]) -> list[str]:
    """Ids of the jobs that four clients submit, each under its own key; none after `end`, a monotonic time.

    may_come : whether the job of a place may be asked for already.
    """

    def submit(place: int) -> str | None:
        while time.monotonic() < end and not may_come(place):
            time.sleep(0.05)
        return str(client.submit(seeds[place], f"job-{place}")["id"]) if time.monotonic() < end else None

    with ThreadPoolExecutor(4) as pool:
        return [number for number in pool.map(submit, range(len(seeds))) if number is not None]


def _all_ended(settings: ServeSettings, seconds: float) -> None:
    """Wait until every job has ended, and its workflow, whose end is written after the job's."""
    with database(settings) as engine:

        def ended() -> bool:
            with engine.connect() as connection:
                return unfinished(connection) == 0 and not {"PENDING", "ENQUEUED"} & {*_statuses(connection).values()}

        until(ended, seconds)


def kills(table: Table, settings: ServeSettings, storm: Storm) -> None:
    """Random kill -9 of workers, keeper and HTTP while jobs are submitted and made."""
    most = {"max_queued": storm.queued, "max_queued_per_key": storm.queued, "job_attempts": 1000}
    settings = settings.model_copy(update=most | {"workers": storm.workers, "poll_seconds": 0.05})
    choose, began = random.Random(1), time.monotonic()
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")
        killer = _Killer(served, lambda: choose.uniform(0.2, 2 * storm.pause), storm)
        try:
            seeds = [1000 * number + choose.choice(storm.lengths) for number in range(storm.jobs)]
            numbers = _submitted(client, seeds, began + storm.seconds, killer.may_come)
            _all_ended(settings, storm.seconds)
        finally:
            killer.stop()
        client.close()
    jobs, found = len(numbers), _counted(settings, numbers)
    done = found["statuses"] == Counter({"SUCCESS": jobs}) and len(set(numbers)) == jobs
    once = found["outputs"] == Counter({1: jobs})
    figures = (
        f"{jobs} of {storm.jobs} jobs in {time.monotonic() - began:.0f} s, {killer.kills.total()} kills "
        f"{dict(killer.kills)}: {found['lost']} lost, {dict(found['statuses'])}, "
        f"outputs {dict(found['outputs'])}, {found['attempts']} starts, "
        f"{found['unnamed']} files without a row"
    )
    whole = jobs == storm.jobs and (killer.kills.total() >= storm.kills or not storm.spread)
    fine = done and once and whole and not found["lost"] and not found["unnamed"] and found["integrity"] == "ok"
    table.add("kill -9", kind_of(settings), figures, fine=fine)
