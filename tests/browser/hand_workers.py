"""Workers that a test moves by hand: what they write into the database is what DBOS and a worker would."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI

from lsx.serving.database import AVATARS, JOBS, PREPARATIONS
from lsx.serving.heartbeat import beating

__all__ = ["HandWorkers"]

_TOTAL = 50
_ACTIVE = ("ENQUEUED", "PENDING")


class HandWorkers:
    """All jobs of an application's database, and how far they are."""

    def __init__(self, app: FastAPI, made: Path) -> None:
        state: Any = app.state
        self._engine, self._store, self._keys, self._made = state.engine, state.store, state.keys, made
        self._fails: str | None = None
        facts = {"digest": "0" * 16, "bundle": "bundle", "resolution": 64, "backend": "onnxruntime"}
        self.alive = beating(self._engine, "test/cpu:0", "worker", lambda: facts | {"precision": "fp32"})

    def _numbers(self, *statuses: str) -> list[str]:
        query = sa.text("SELECT workflow_uuid FROM workflow_status WHERE status IN :statuses ORDER BY created_at")
        with self._engine.connect() as connection:
            found = connection.execute(query.bindparams(sa.bindparam("statuses", statuses, expanding=True)))
            return [str(number) for number in found.scalars()]

    def _set(self, number: str, status: str, row: dict[str, Any], **columns: Any) -> None:
        values = {"status": status, "serialization": "portable_json", "updated_at": int(time.time() * 1000)} | columns
        names = ", ".join(f"{name} = :{name}" for name in values)
        with self._engine.begin() as connection:
            statement = sa.text(f"UPDATE workflow_status SET {names} WHERE workflow_uuid = :number")  # noqa: S608
            connection.execute(statement, values | {"number": number})
            connection.execute(JOBS.update().where(JOBS.c.id == number).values(**row))

    def start_jobs(self) -> None:
        """Take every waiting job, and come to a stop amid its frames."""
        progress = {"stage": "denoise", "frames": 20, "total": _TOTAL, "fps": 4.0, "eta_seconds": 7.5}
        for number in self._numbers("ENQUEUED"):
            self._set(number, "PENDING", {"started_ms": int(time.time() * 1000), "attempts": 1, "progress": progress})

    def finish_jobs(self) -> None:
        """Finish every job that is not over."""
        for number in self._numbers(*_ACTIVE):
            now = int(time.time() * 1000)
            row = {"started_ms": now, "finished_ms": now, "attempts": 1}
            if self._fails is not None:
                error = {"name": "OutputError", "message": self._fails, "code": None}
                self._set(number, "ERROR", row, error=json.dumps(error), completed_at=now)
                self._fails = None
                continue
            copied = self._made.with_name(f"{number}.mp4")
            shutil.copyfile(self._made, copied)
            size, key = copied.stat().st_size, f"outputs/{number}/made.mp4"
            self._store.put(key, copied)
            made = {"key": key, "size": size, "seconds": 2.0, "notes": []}
            self._set(number, "SUCCESS", row, output=json.dumps(made), completed_at=now)

    def prepare_avatars(self) -> None:
        """Make every avatar ready."""
        with self._engine.begin() as connection:
            now = int(time.time() * 1000)
            for number in connection.execute(sa.select(AVATARS.c.id)).scalars().all():
                facts = {"frames": 50, "seconds": 2.0, "width": 128, "height": 128, "source": "source", "bytes": 1}
                values = {"avatar": number, "encoder": "0" * 16, "prefix": f"avatars/{number}", "facts": facts}
                connection.execute(PREPARATIONS.insert().values(**values, created_ms=now, used_ms=now))
                copied = self._made.with_name(number)
                shutil.copyfile(self._made, copied)
                self._store.put(f"avatars/{number}/source", copied)
                connection.execute(AVATARS.update().where(AVATARS.c.id == number).values(started_ms=now))

    def fail_next(self, message: str) -> None:
        """Let the job that would be finished next fail instead."""
        self._fails = message

    def require_key(self) -> str:
        """From now on a key is needed: this one."""
        return str(self._keys.create("the tests", ["jobs"])[1])
