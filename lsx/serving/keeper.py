"""The keeper sees to what is beside the jobs: webhooks, lost workers, what is too old, files that nobody names."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, EnqueueOptions

from lsx.errors import LsxError
from lsx.serving.avatar_keeper import AvatarKeeper
from lsx.serving.database import ASSETS, AVATARS, HOUR_MS, JOBS, UNTOLD, database_url, engine_for, finish, now_ms
from lsx.serving.executor import as_step, drained_at_sigterm, launch
from lsx.serving.gpu_queue import VERSION
from lsx.serving.heartbeat import beating, pause_of, seen_since
from lsx.serving.job_book import JobBook
from lsx.serving.kept_sections import sections_key
from lsx.serving.logs import log_to_stderr, logger
from lsx.serving.outside import AddressRefused
from lsx.serving.processes import given_settings, named
from lsx.serving.schemas import HOOK_EVENTS, Job
from lsx.serving.settings import ServeSettings
from lsx.serving.statuses import TERMINAL
from lsx.serving.store import Store, store_at
from lsx.serving.webhooks import event_of, hook_secret, hook_type, send

__all__ = ["Keeper", "main"]

HOOK_QUEUE, _HOOK_WORKFLOW = "hooks", "webhook"
_SWEEP_SECONDS = 1.0
_TAKEOVER_PAUSE = 15.0
_RETENTION_PAUSE = 300.0
_FAILED_PAUSE = 15.0
_STARTED = "PROCESSING"
_AT_ONCE = 200
_IN_A_ROW = 10 * _AT_ONCE
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]  # DBOS's words


class Keeper:
    """Looks after a database and its store. One of several does no harm: each thing is done once."""

    def __init__(self, settings: ServeSettings, engine: sa.Engine, store: Store) -> None:
        self._settings, self._engine, self._store = settings, engine, store
        self._book = JobBook(engine, settings)
        self._avatars = AvatarKeeper(engine, store, settings.takeover_seconds)
        self._secret = hook_secret(settings.hook_secret, settings.data)

    def register(self) -> None:
        """Declare the webhooks' workflow to DBOS. Every try is one of its own: those that wait hold no place."""
        deliver = as_step("deliver", self._deliver)

        @DBOS.workflow(name=_HOOK_WORKFLOW)
        def webhook(url: str, number: str, body: str, tries: int) -> bool:
            if deliver(url, number, body):
                return True
            if tries < len(self._settings.hook_pauses):
                _enqueue_hook(url, number, body, tries + 1, self._settings.hook_pauses[tries])
            return False

    def _deliver(self, url: str, number: str, body: str) -> bool:
        try:
            return send(url, number, body.encode(), self._secret, self._settings.allow_hook)
        except AddressRefused as error:
            logger().warning("webhook is not sent", event_id=number, reason=str(error))
            return True

    def sweep(self) -> None:
        """Free the places of jobs that ended without a word, and announce what is to be announced."""
        begun = sa.or_(JOBS.c.started_ms.is_not(None), JOBS.c.finished_ms.is_not(None))
        # What has ended goes first: thousands that run have been told of, and are looked at by lot.
        first = (JOBS.c.finished_ms.is_(None), JOBS.c.announced.is_not(None), sa.func.random())
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(JOBS).where(UNTOLD, begun).order_by(*first).limit(_IN_A_ROW)).all()
        for row, job in zip(rows, self._book.jobs(rows), strict=True):
            ended = job.status in TERMINAL
            if ended and row.finished_ms is None:
                with self._engine.begin() as connection:
                    finish(connection, row.id, self._settings.keep_hours)
            if job.status != row.announced and (ended or job.status == _STARTED):
                self._announce(row, job)

    def _announce(self, row: Any, job: Job) -> None:
        """Set a webhook going, once for each status: its workflow's id is made of job and status."""
        url, kind = row.request.get("webhook_url"), hook_type(job.status)
        if url is not None and kind in row.request.get("webhook_events_filter", HOOK_EVENTS):
            body = event_of(job.status, job.model_dump(mode="json"), time.time()).decode()
            _enqueue_hook(url, f"hook-{row.id}-{job.status.lower()}", body, 0, 0)
        with self._engine.begin() as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == row.id).values(announced=job.status))

    def take_over(self) -> list[str]:
        """Give the jobs of executors that were not seen for long to others; the executors."""
        settings = self._settings
        with self._engine.connect() as connection:
            alive = {row.executor for row in seen_since(connection, settings.takeover_seconds)}
        running = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        lost = sorted({str(found.executor_id) for found in running if found.executor_id} - alive)
        lost = [executor for executor in lost if self._is_old(executor, running)]
        if lost:
            logger().warning("jobs are taken over", executors=lost)
            DBOS._recover_pending_workflows(lost)
        return lost

    def _is_old(self, executor: str, running: list[Any]) -> bool:
        """Whether all that it runs began so long ago that it had time to be seen."""
        limit = time.time() * 1000 - self._settings.takeover_seconds * 1000
        begun = [found.dequeued_at or found.created_at or 0 for found in running if found.executor_id == executor]
        return all(at < limit for at in begun)

    def remove_old(self) -> bool:
        """Forget jobs, webhooks and uploads that are kept no longer, and files that no row names.

        Whether there is more to remove at once: other duties come between.
        """
        with self._engine.connect() as connection:
            now = now_ms(connection)
            old = sa.select(JOBS.c.id).where(JOBS.c.expires_ms < now, JOBS.c.finished_ms.is_not(None))
            numbers = list(connection.execute(old.limit(_IN_A_ROW)).scalars())
        for some in _batches(numbers):
            self._book.forget(some)
            for number in some:
                self._store.remove(f"outputs/{number}")
        hooks = self._remove_hooks(now)
        self._remove_uploads(now)
        if _IN_A_ROW in (len(numbers), hooks):
            return True
        self._avatars.remove_unused(now)
        self._avatars.remove_orphans(now)
        self.remove_orphans(now)
        return False

    def _remove_hooks(self, now: int) -> int:
        """Forget the tries of webhooks that are as old as a job may be; how many."""
        before = datetime.fromtimestamp(now / 1000 - self._settings.keep_hours * HOUR_MS / 1000, UTC).isoformat()
        found = DBOS.list_workflows(
            name=_HOOK_WORKFLOW,
            status=_ENDED,
            end_time=before,
            limit=_IN_A_ROW,
            load_input=False,
            load_output=False,
        )
        for some in _batches([workflow.workflow_id for workflow in found]):
            DBOS.delete_workflows(some)
        return len(found)

    def _remove_uploads(self, now: int) -> None:
        """Uploads that are too old, and that no job and no avatar that has not ended names."""
        with self._engine.connect() as connection:
            old = connection.execute(sa.select(ASSETS.c.id).where(ASSETS.c.expires_ms < now)).scalars().all()
            active = [
                connection.execute(sa.select(table.c.request).where(table.c.finished_ms.is_(None))).scalars().all()
                for table in (JOBS, AVATARS)
            ]
        used = str(active)
        gone = [number for number in old if number not in used]
        for number in gone:
            self._store.remove(f"uploads/{number}")
        if gone:
            with self._engine.begin() as connection:
                connection.execute(ASSETS.delete().where(ASSETS.c.id.in_(gone)))

    def remove_orphans(self, now: int) -> None:
        """Files of the store that no job's result and no upload's row names, and that are older than an hour."""
        for kind, wanted in (("outputs", self._named_outputs), ("uploads", self._named_uploads)):
            old = (found.key for found in self._store.list(kind) if found.modified_ms < now - HOUR_MS)
            for some in _batches(old):
                for key in set(some) - wanted(some):
                    self._store.remove(key)
        for some in _batches({found.key.split("/")[1] for found in self._store.list("sections")}):
            for number in set(some) - self._active(some):
                self._store.remove(sections_key(number))

    def _active(self, numbers: list[str]) -> set[str]:
        """Those of jobs that have not ended."""
        active = sa.select(JOBS.c.id).where(JOBS.c.id.in_(numbers), JOBS.c.finished_ms.is_(None))
        with self._engine.connect() as connection:
            return set(connection.execute(active).scalars())

    def _named_outputs(self, keys: list[str]) -> set[str]:
        """Those that are a job's result, or may still become it."""
        numbers = list({key.split("/")[1] for key in keys})
        found = DBOS.list_workflows(workflow_ids=numbers, load_input=False)
        made = {workflow.output["key"] for workflow in found if workflow.status == "SUCCESS" and workflow.output}
        open_jobs = {workflow.workflow_id for workflow in found if workflow.status not in _ENDED}
        return {key for key in keys if key in made or key.split("/")[1] in open_jobs}

    def _named_uploads(self, keys: list[str]) -> set[str]:
        numbers = [key.rpartition("/")[2] for key in keys]
        with self._engine.connect() as connection:
            kept = set(connection.execute(sa.select(ASSETS.c.id).where(ASSETS.c.id.in_(numbers))).scalars())
        return {key for key in keys if key.rpartition("/")[2] in kept}

    def keep(self, stop: threading.Event) -> None:
        """Do all of it, each at its own pace, until told to stop. What fails is done again, and keeps nothing else."""
        unseen = self._settings.takeover_seconds
        duties = (
            _Duty("sweep", self.sweep, _SWEEP_SECONDS),
            _Duty("avatars", self._avatars.sweep, _SWEEP_SECONDS),
            _Duty("takeover", self.take_over, min(_TAKEOVER_PAUSE, unseen / 4), time.monotonic() + unseen),
            _Duty("removal", self.remove_old, _RETENTION_PAUSE),
        )
        while not stop.wait(_SWEEP_SECONDS):
            for duty in duties:
                duty.do_if_due()


@dataclass(slots=True)
class _Duty:
    """One of the keeper's."""

    name: str
    work: Callable[[], object]
    """What is done; where it gives True there is more of it at once."""
    pause: float
    due: float = 0.0

    def do_if_due(self) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self._done()

    def _done(self) -> float:
        """Do it; the seconds until it is due again."""
        try:
            return 0.0 if self.work() is True else self.pause
        except sa.exc.SQLAlchemyError:
            return _SWEEP_SECONDS  # the database is away
        except Exception:
            logger().error("a duty of the keeper failed", duty=self.name, exc_info=True)
            return _FAILED_PAUSE


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    """In lists as long as one statement of a database takes well."""
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _enqueue_hook(url: str, number: str, body: str, tries: int, pause: float) -> None:
    options = EnqueueOptions(
        workflow_name=_HOOK_WORKFLOW, queue_name=HOOK_QUEUE, app_version=VERSION, workflow_id=f"{number}-{tries}"
    )
    if pause > 0:
        options["delay_seconds"] = pause
    DBOS.enqueue_workflow_with_options(options, url, number, body, tries)


def main() -> int:
    """Keep, with the settings on standard input, under the name in the first argument."""
    settings, name = given_settings(), sys.argv[1]
    log_to_stderr(settings.log_level, process=name, machine=settings.machine)
    try:
        with named(settings, name):
            _work(settings, settings.executor(name))
    except LsxError as error:
        logger().error("the keeper cannot start", error=str(error))
        return 3
    return 0


def _work(settings: ServeSettings, executor: str) -> None:
    engine, stop = engine_for(database_url(settings.database, settings.data)), threading.Event()
    keeper = Keeper(settings, engine, store_at(settings.store, settings.data))
    launch(engine, executor, HOOK_QUEUE, keeper.register, poll=1.0, at_once=16, traces=settings.traces)
    thread = threading.Thread(target=keeper.keep, args=(stop,), name="keep", daemon=True)
    with beating(engine, executor, "keeper", dict, pause_of(settings.takeover_seconds)):
        thread.start()
        drained_at_sigterm(min(settings.grace_seconds, 10))
        stop.set()
        thread.join(5)


if __name__ == "__main__":
    sys.exit(main())
