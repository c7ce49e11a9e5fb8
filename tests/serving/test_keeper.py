"""The keeper: jobs of lost executors, and what is too old, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS
from structlog.testing import capture_logs

from lsx.serving.database import ASSETS, JOBS, engine_for, now_ms
from lsx.serving.executor import launch
from lsx.serving.gpu_queue import Owner
from lsx.serving.job_book import JobBook
from lsx.serving.keeper import HOOK_QUEUE, Keeper
from lsx.serving.schemas import JobRequest
from lsx.serving.settings import ServeSettings
from lsx.serving.store import FolderStore
from tests.serving.served import until

_OWNER = Owner("local", 100)
_LOST = "gone/gpu:0"


class _Kept:
    """A keeper that works, the book beside it, and jobs of uploads that are rows alone."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.engine = engine_for(str(settings.database))
        self.store = FolderStore(settings.data / "store")
        self.book = JobBook(self.engine, settings)
        settings.data.mkdir(parents=True, exist_ok=True)
        self.keeper = Keeper(settings, self.engine, self.store)
        prefix = "" if self.engine.dialect.name == "sqlite" else "dbos."
        self.statuses = f"{prefix}workflow_status"

    def job(self, **more: Any) -> str:
        """A new job's id."""
        ids = {kind: f"asset_{kind[0] * 26}".replace("i", "1") for kind in ("video", "audio")}
        with self.engine.begin() as connection:
            for kind, number in ids.items():
                if connection.execute(sa.select(ASSETS.c.id).where(ASSETS.c.id == number)).first() is None:
                    facts = {"duration": 1.0, "has_sound": True}
                    row = {"id": number, "owner": "local", "kind": kind, "facts": facts, "created_ms": 0}
                    more_of_it = {"filename": "", "media_type": "", "size": 1, "sha256": ""}
                    connection.execute(ASSETS.insert(), row | more_of_it)
        inputs = [{"type": kind, "asset_id": number} for kind, number in ids.items()]
        return self.book.create(_OWNER, JobRequest.model_validate({"input": inputs} | more)).id

    def change(self, number: str, **values: Any) -> None:
        """Columns of a job's workflow."""
        names = ", ".join(f"{name} = :{name}" for name in values)
        statement = sa.text(f"UPDATE {self.statuses} SET {names} WHERE workflow_uuid = :number")  # noqa: S608
        with self.engine.begin() as connection:
            connection.execute(statement, values | {"number": number})

    def lost(self) -> str:
        """A job that an executor has which was never seen."""
        number = self.job()
        self.change(number, status="PENDING", executor_id=_LOST, started_at_epoch_ms=1, created_at=1)
        return number

    def workflows(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.execute(sa.text(f"SELECT workflow_uuid FROM {self.statuses}")).scalars())  # noqa: S608


@pytest.fixture
def kept(settings: ServeSettings) -> Iterator[_Kept]:
    kept = _Kept(settings.model_copy(update={"allow_hook": ("127.0.0.1",), "hook_pauses": ()}))
    launch(kept.engine, "test/keeper", HOOK_QUEUE, kept.keeper.register, poll=0.1, at_once=4)
    yield kept
    DBOS.destroy(destroy_registry=True)
    kept.engine.dispose()


def test_a_lost_executors_job_is_given_away_and_a_cancelled_one_is_not(
    kept: _Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled before the takeover, in its midst, and after it: it stays cancelled."""
    before, amid, after = (kept.lost() for _ in range(3))
    assert kept.book.cancel(_OWNER, before).status == "CANCELED"
    recover = DBOS._recover_pending_workflows

    def cancelled_amid(executors: list[str]) -> Any:
        assert kept.book.cancel(_OWNER, amid).status == "CANCELED"
        return recover(executors)

    monkeypatch.setattr(DBOS, "_recover_pending_workflows", cancelled_amid)
    assert kept.keeper.take_over() == [_LOST]
    assert kept.book.get(_OWNER, after).status == "PENDING"
    assert kept.book.cancel(_OWNER, after).status == "CANCELED"
    kept.keeper.sweep()
    assert {kept.book.get(_OWNER, number).status for number in (before, amid, after)} == {"CANCELED"}
    assert kept.keeper.take_over() == []


def test_many_that_run_keep_nobody_from_being_told_of(kept: _Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    running = [kept.job() for _ in range(5)]
    for number in running:
        kept.change(number, status="PENDING")
    with kept.engine.begin() as connection:
        connection.execute(JOBS.update().values(started_ms=1))
    kept.keeper.sweep()
    ended = kept.job()
    kept.book.cancel(_OWNER, ended)
    monkeypatch.setattr("lsx.serving.keeper._IN_A_ROW", 1)
    kept.keeper.sweep()
    with kept.engine.connect() as connection:
        told = dict(connection.execute(sa.select(JOBS.c.id, JOBS.c.announced)).all())
    assert told == dict.fromkeys(running, "PROCESSING") | {ended: "CANCELED"}


def test_what_is_too_old_goes_with_its_webhooks_and_files(kept: _Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [kept.job(webhook_url="http://127.0.0.1:9/") for _ in range(3)]  # where nobody listens
    young = kept.job()
    for number in old:
        kept.book.cancel(_OWNER, number)
        _file(kept, f"outputs/{number}/0.mp4", hours=0)
    for key, hours in {f"outputs/{young}/a": 2, "outputs/job_none/a": 2, "outputs/job_none/b": 0}.items():
        _file(kept, key, hours)
    for key, hours in {"uploads/asset_" + "v" * 26: 2, "uploads/asset_none": 2, "uploads/asset_new": 0}.items():
        _file(kept, key, hours)
    kept.keeper.sweep()
    hooks = {f"hook-{number}-canceled-0" for number in old}
    until(lambda: {_status(hook) for hook in hooks} == {"SUCCESS"})
    for number in (*hooks, *old):
        kept.change(number, created_at=1)
    with kept.engine.begin() as connection:
        connection.execute(JOBS.update().where(JOBS.c.id.in_(old)).values(expires_ms=now_ms(connection) - 1))
    monkeypatch.setattr("lsx.serving.keeper._IN_A_ROW", 2)
    turns = [kept.keeper.remove_old() for _ in range(3)]
    assert turns == [True, False, False]
    assert kept.workflows() == {young}
    left = {found.key for found in (*kept.store.list("outputs"), *kept.store.list("uploads"))}
    assert left == {f"outputs/{young}/a", "outputs/job_none/b", "uploads/asset_" + "v" * 26, "uploads/asset_new"}


def _file(kept: _Kept, key: str, hours: float) -> None:
    path: Path = kept.settings.data / "store" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    then = path.stat().st_mtime - hours * 3600
    os.utime(path, (then, then))


def _status(number: str) -> str | None:
    found = DBOS.list_workflows(workflow_ids=[number])
    return found[0].status if found else None


def test_a_duty_that_fails_keeps_no_other(kept: _Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises: a folder that somebody else made in the store, a store that is away."""
    done, stop = [], threading.Event()

    def removed() -> bool:
        done.append("removal")
        return len(done) < 3

    def swept() -> None:
        raise IndexError("nothing of lsx's")

    monkeypatch.setattr("lsx.serving.keeper._SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(kept.keeper, "sweep", swept)
    monkeypatch.setattr(kept.keeper, "remove_old", removed)
    with capture_logs() as logs:
        thread = threading.Thread(target=kept.keeper.keep, args=(stop,))
        thread.start()
        until(lambda: len(done) == 3)
        assert thread.is_alive()
        stop.set()
        thread.join()
    assert [(line["event"], line["duty"]) for line in logs] == [("a duty of the keeper failed", "sweep")]
