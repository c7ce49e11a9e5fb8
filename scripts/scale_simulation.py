"""Many workers and jobs through the real HTTP process, keeper and PostgreSQL.

python -m scripts.scale_simulation FOLDER [--workers 1000] [--jobs 100000]

Renders sleep; workers are executors of scripts/scale_executors.py, hundreds to a process. Prints what docs/scaling.md
has: jobs a second, the time from a job's acceptance to its start, requests, transactions, and the database's size.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from lsx.serving.database import JOBS
from lsx.serving.processes import started
from lsx.serving.settings import ServeSettings
from tests.serving.served import until
from tests.torture.harness import Client, database, fake_server, postgres

_CLIENTS = 12
_REAL = "tests.serving.fake_worker"
_PARTS = {
    "workers": _REAL,
    "http": "lsx.serving.http_process",
    "keeper": "lsx.serving.keeper",
    "executors": "scripts.scale_executors",
}
_LOOK_SECONDS = 10.0
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.scale_simulation", description=__doc__)
    parser.add_argument("folder", type=Path, help="new; database and files come to be there")
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a render, on average; each is 0.5 to 1.5 of it")
    parser.add_argument("--rate", type=float, default=None, help="jobs that are asked for a second; default at once")
    parser.add_argument("--poll", type=float, default=1.0, help="--poll-seconds of the workers")
    parser.add_argument("--progress", type=float, default=10.0, help="--progress-seconds of the workers")
    parser.add_argument("--processes", type=int, default=4, help="that the workers share")
    parser.add_argument(
        "--connections", type=int, default=8, help="to the database, of each of these, and as many more"
    )
    parser.add_argument("--real", action="store_true", help="a process and a DBOS of its own for each worker")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds for which nobody asks for anything, first")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds after which the rest is not waited for")
    return parser.parse_args()


class _Asker:
    """Asks for jobs with several clients, each on a connection that it keeps."""

    def __init__(self, client: Client, given: argparse.Namespace) -> None:
        self._client, self._given, self._own = client, given, threading.local()
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self.seconds: list[float] = []
        """Of each request that was answered with 202."""
        self.again = 0
        """Requests that had another answer, or none, and were made again."""
        self.done_after = 0.0

    def ask_for_all(self) -> None:
        """Each job at its time, where there is a rate."""
        with ThreadPoolExecutor(_CLIENTS) as pool:
            list(pool.map(self._ask, range(self._given.jobs)))
        self.done_after = time.monotonic() - self._began

    def _ask(self, number: int) -> None:
        rate, mean = self._given.rate, self._given.seconds
        if rate is not None:
            time.sleep(max(0.0, self._began + number / rate - time.monotonic()))
        seed = round(100 * random.Random(number).uniform(0.5 * mean, 1.5 * mean))
        body = json.dumps(self._client.body(seed))
        while True:
            began = time.perf_counter()
            try:
                status = self._posted(body, f"job-{number}")
            except (OSError, HTTPException):
                self._own.connection, status = None, 0
            if status == 202:
                with self._lock:
                    self.seconds.append(time.perf_counter() - began)
                return
            self.again += 1
            time.sleep(0.5)

    def _posted(self, body: str, key: str) -> int:
        if getattr(self._own, "connection", None) is None:
            self._own.connection = HTTPConnection("127.0.0.1", self._client.port(), timeout=60)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        self._own.connection.request("POST", "/v1/jobs", body, headers)
        answer = self._own.connection.getresponse()
        answer.read()
        return int(answer.status)


@contextmanager
def _executors(settings: ServeSettings, given: argparse.Namespace) -> Iterator[None]:
    """The processes of all workers, until the block ends."""
    with ExitStack() as stack:
        left = given.workers
        for number in range(left) if given.real else ():
            own = settings.model_copy(update={"machine": f"m{number}", "data": settings.data / f"m{number}"})
            child = started(_REAL, "cpu:0", own.model_copy(update={"store": str(settings.data / "store")}))
            stack.callback(child.wait)
            stack.callback(child.kill)
        for number in range(0 if given.real else given.processes):
            count = left // (given.processes - number)
            left -= count
            own = settings.model_copy(update={"machine": f"m{number}"})
            child = started("scripts.scale_executors", f"{count}", own, {"LSX_CONNECTIONS": str(given.connections)})
            stack.callback(child.wait)
            stack.callback(child.kill)
        yield


class _Cores:
    """Core seconds that the parts have used since this was made."""

    def __init__(self, engine: sa.Engine) -> None:
        with engine.connect() as connection:
            backend = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        self._postgres: Any = psutil.Process(int(backend)).parent()
        self._before = self._now()

    def since(self) -> dict[str, float]:
        """By part: http, keeper, executors, postgres, clients."""
        now = self._now()
        return {part: round(seconds - self._before.get(part, 0.0), 2) for part, seconds in now.items()}

    def _now(self) -> dict[str, float]:
        found = {"clients": _used(psutil.Process())}
        for process in psutil.Process().children(recursive=True):
            command = " ".join(process.cmdline())
            for part, module in _PARTS.items():
                if module in command:
                    found[part] = found.get(part, 0.0) + _used(process)
        ended = self._postgres.cpu_times()
        backends = sum(_used(one) for one in self._postgres.children(recursive=True))
        found["postgres"] = ended.children_user + ended.children_system + backends
        return found


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _counts(connection: sa.Connection) -> tuple[int, int, int, int]:
    """Jobs, those that have begun, those that have ended, and transactions of this database so far."""
    row = connection.execute(
        sa.select(sa.func.count(), sa.func.count(JOBS.c.started_ms), sa.func.count(JOBS.c.finished_ms))
    ).one()
    statement = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    return (*(int(value) for value in row), int(connection.execute(sa.text(statement)).scalar_one()))  # type: ignore[return-value]


def _watched(engine: sa.Engine, given: argparse.Namespace) -> tuple[float, list[tuple[float, int, int, int]]]:
    """Look until all have ended; the seconds, and what there was at each look."""
    began, looks = time.monotonic(), []
    while True:
        time.sleep(_LOOK_SECONDS if given.jobs > 2000 else 1.0)
        with engine.connect() as connection:
            jobs, begun, ended, committed = _counts(connection)
        seconds = time.monotonic() - began
        looks.append((seconds, begun, ended, committed))
        shares: Any = psutil.cpu_percent(percpu=True)
        busy = [round(share) for share in shares]
        print(f"{seconds:6.0f} s: {jobs} jobs, {begun - ended} run, {ended} ended; cores {busy}", flush=True)
        if ended >= given.jobs or seconds > given.limit:
            return seconds, looks


def _idle(engine: sa.Engine, seconds: float) -> dict[str, float]:
    """Cores that are used, and transactions a second, while all workers look for jobs and there is none."""
    with engine.connect() as connection:
        before = _counts(connection)[3]
    cores = _Cores(engine)
    time.sleep(seconds)
    used = {f"{part}_cores": round(used / seconds, 4) for part, used in cores.since().items()}
    with engine.connect() as connection:
        committed = _counts(connection)[3] - before
        connections = connection.execute(sa.text(_CONNECTED)).scalar_one()
    return {"transactions_a_second": round(committed / seconds, 1), "connections": int(connections), **used}


def _figures(engine: sa.Engine, looks: list[tuple[float, int, int, int]]) -> dict[str, Any]:
    """What the database says in the end."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(JOBS.c.created_ms, JOBS.c.started_ms, JOBS.c.finished_ms, JOBS.c.attempts))
        found = rows.all()
        size = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
        tables = connection.execute(
            sa.text(
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' ORDER BY 2 DESC LIMIT 6"
            )
        ).all()
    waits = [(row.started_ms - row.created_ms) / 1000 for row in found if row.started_ms is not None]
    ended = [row.finished_ms for row in found if row.finished_ms is not None]
    # In the middle of the run, when all workers are there and none is short of jobs.
    first, last = looks[len(looks) // 4], looks[(3 * len(looks)) // 4]
    steady = (last[2] - first[2]) / (last[0] - first[0]) if last[0] > first[0] else float("nan")
    commits = (last[3] - first[3]) / (last[0] - first[0]) if last[0] > first[0] else float("nan")
    return {
        "ended": len(ended),
        "attempts": sum(row.attempts for row in found),
        "jobs_a_second": round(len(ended) / ((max(ended) - min(row.created_ms for row in found)) / 1000), 2),
        "jobs_a_second_steady": round(steady, 2),
        "transactions_a_second_steady": round(commits),
        "enqueue_to_start_p50": round(_percentile(waits, 0.5), 3),
        "enqueue_to_start_p99": round(_percentile(waits, 0.99), 3),
        "database_mib": round(size / 2**20, 1),
        "largest_tables_mib": {row[0]: round(row[1] / 2**20, 1) for row in tables},
    }


def main() -> int:
    """Run once, and print the figures as JSON."""
    given = _given()
    with postgres(given.folder / "postgres") as server:
        settings = ServeSettings(
            data=given.folder.absolute() / "data",
            database=server.address("scale"),
            port=0,
            machine="front",
            workers="none",
            min_free_bytes=0,
            max_queued=10**6,
            max_queued_per_key=10**6,
            poll_seconds=given.poll,
            progress_seconds=given.progress,
            deadline_seconds=10**6,
        )
        with fake_server(settings) as served, database(settings) as engine, _executors(settings, given):
            client = Client(served, settings.data / "media")
            path = f"/v1/health/ready?workers={given.workers}"
            until(lambda: served.api.get(path).status_code == 200, 300)
            print(f"{given.workers} workers are there", flush=True)
            idle = _idle(engine, given.idle)
            cores, asker = _Cores(engine), _Asker(client, given)
            asking = threading.Thread(target=asker.ask_for_all, daemon=True)
            asking.start()
            seconds, looks = _watched(engine, given)
            asking.join()
            figures = {"idle": idle, "seconds": round(seconds, 1), **_figures(engine, looks), **_asked(asker)}
            figures["core_seconds"] = cores.since()
            client.close()
    print(json.dumps({**vars(given), "folder": str(given.folder.name), **figures}, indent=2))
    return 0 if figures["ended"] == figures["attempts"] == given.jobs else 1


def _asked(asker: _Asker) -> dict[str, Any]:
    return {
        "posts_a_second": round(len(asker.seconds) / asker.done_after, 1),
        "post_p50": round(statistics.median(asker.seconds), 4),
        "post_p99": round(_percentile(asker.seconds, 0.99), 4),
        "posted_again": asker.again,
    }


if __name__ == "__main__":
    sys.exit(main())
