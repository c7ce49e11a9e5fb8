"""The jobs as the HTTP side sees them: taken in, told of, cancelled, removed. It runs none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from dbos import WorkflowStatus

from lsx.serving.avatar_book import AvatarBook
from lsx.serving.database import JOBS, finish
from lsx.serving.gpu_queue import Entry, GpuQueue, Owner, longest
from lsx.serving.idempotency import check_same, fingerprint_of
from lsx.serving.ids import is_id, keyed_id, new_id
from lsx.serving.job_checks import check_options, named_assets
from lsx.serving.pages import cursor_of, is_after, place_of
from lsx.serving.problems import conflict, not_found
from lsx.serving.schemas import Job, JobError, JobList, JobProgress, JobRequest, JobUrls, iso
from lsx.serving.settings import ServeSettings
from lsx.serving.statuses import TERMINAL, JobStatus, outcome_of

__all__ = ["WORKFLOW", "JobBook", "Output"]

WORKFLOW = "lipsync"
"""DBOS's name of it."""

_BATCH = 500
"""Rows at a time in which jobs of a status are looked for: of the status itself DBOS alone has the word."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a job made."""

    key: str
    size: int
    file_name: str
    media_type: str


class JobBook:
    """Jobs of all owners. Used from any thread."""

    def __init__(self, engine: sa.Engine, settings: ServeSettings) -> None:
        self._queue, self._settings = GpuQueue(engine, settings), settings
        self._reader = self._queue.reader
        self.avatars = AvatarBook(self._queue)
        """Those that jobs may name."""

    def known(self, owner: Owner, key: str | None, asked: JobRequest) -> Job | None:
        """The job that this Idempotency-Key gave before. Raises ApiProblem where it came with another request."""
        if key is None:
            return None
        number = keyed_id("job", owner.id, key)
        with self._reader.connect() as connection:
            before = connection.execute(sa.select(JOBS.c.fingerprint).where(JOBS.c.id == number)).scalar()
        if before is None:
            return None
        check_same(before, _fingerprint(asked))
        return self.get(owner, number)

    def create(
        self,
        owner: Owner,
        request: JobRequest,
        key: str | None = None,
        *,
        asked: JobRequest | None = None,
        retry_of: str | None = None,
    ) -> Job:
        """Take a job in, in one transaction. The same key and request give the same job. Raises ApiProblem.

        asked : the request as it came, where downloads have become uploads in `request`.
        """
        content, fingerprint = request.model_dump(mode="json", exclude_unset=True), _fingerprint(asked or request)
        number = keyed_id("job", owner.id, key) if key is not None else new_id("job")
        assets = named_assets(request)
        check_options(request)
        entry = Entry(
            table=JOBS,
            workflow=WORKFLOW,
            number=number,
            owner=owner,
            fingerprint=fingerprint,
            priority=request.priority,
            assets=assets,
            columns=lambda _: {"request": content, "retry_of": retry_of, "attempts": 0},
            seconds=longest(self.avatars.named(owner, request)),
        )
        placed = self._queue.take(entry)
        if placed is None:
            return self.get(owner, number)
        return _job(placed.row, ("PENDING", "", ""), None, placed.place)

    def get(self, owner: Owner, number: str) -> Job:
        """A job. Raises ApiProblem, also for another owner's."""
        return self.jobs([self._row(owner, number)])[0]

    def _row(self, owner: Owner, number: str) -> Any:
        row = None
        if is_id(number):
            with self._reader.connect() as connection:
                row = connection.execute(sa.select(JOBS).where(JOBS.c.id == number)).first()
        if row is None or row.owner != owner.id:
            raise not_found("job")
        return row

    def page(self, owner: Owner, status: JobStatus | None, limit: int, cursor: str | None) -> JobList:
        """The owner's jobs, latest first. Raises ApiProblem for a cursor that this did not give."""
        found: list[Job] = []
        place, batch = place_of(cursor), limit + 1 if status is None else _BATCH
        while len(found) <= limit:
            query = sa.select(JOBS).where(JOBS.c.owner == owner.id)
            if status is not None and status not in TERMINAL:
                query = query.where(JOBS.c.finished_ms.is_(None))
            if place is not None:
                query = query.where(is_after(JOBS, place))
            query = query.order_by(JOBS.c.created_ms.desc(), JOBS.c.id.desc()).limit(batch)
            with self._reader.connect() as connection:
                rows = connection.execute(query).all()
            for row, job in zip(rows, self.jobs(rows), strict=True):
                if status is None or job.status == status:
                    found.append(job)
                if len(found) == limit + 1 and place is not None:
                    return JobList(data=found[:limit], next_cursor=cursor_of(place))
                place = (row.created_ms, row.id)
            if len(rows) < batch:
                break
        return JobList(data=found, next_cursor=None)

    def jobs(self, rows: Sequence[Any]) -> list[Job]:
        """The jobs of rows of `JOBS`, in two queries however many they are."""
        ids = [row.id for row in rows]
        if not ids:
            return []
        kept = self._queue.workflows(ids)
        places = self._queue.places(rows)
        return [_told(row, kept.get(row.id), places.get(row.id)) for row in rows]

    def snapshot(self, ids: Iterable[str]) -> dict[str, Job]:
        """The jobs of these ids, by them, whoever owns them."""
        with self._reader.connect() as connection:
            rows = connection.execute(sa.select(JOBS).where(JOBS.c.id.in_(list(ids)))).all()
        return {job.id: job for job in self.jobs(rows)}

    def cancel(self, owner: Owner, number: str) -> Job:
        """End a job that has not ended: it is CANCELED at once. Raises ApiProblem."""
        job = self.get(owner, number)
        if job.status in TERMINAL:
            raise conflict("already_ended", f"the job is {job.status} already")
        self._queue.cancel(number)
        job = self.get(owner, number)
        if job.status in TERMINAL:
            self._free(number)
        if job.status != "CANCELED":
            raise conflict("already_ended", f"the job is {job.status} already")
        return job

    def _free(self, number: str) -> None:
        """Give the job's place in the queue free."""
        with self._queue.writing() as connection:
            finish(connection, number, self._settings.keep_hours)

    def retry(self, owner: Owner, number: str, key: str | None = None) -> Job:
        """A new job like one that failed or was cancelled. Raises ApiProblem."""
        row = self._row(owner, number)
        job = self.jobs([row])[0]
        if job.status not in ("FAILED", "CANCELED"):
            raise conflict("not_retryable", f"the job is {job.status}; what failed or was canceled can be tried again")
        return self.create(owner, JobRequest.model_validate(row.request), key, retry_of=number)

    def delete(self, owner: Owner, number: str) -> None:
        """Cancel where it has not ended, and forget. Its files are the store's. Raises ApiProblem."""
        if self.get(owner, number).status not in TERMINAL:
            self._queue.cancel(number)
        self.forget([number])

    def forget(self, numbers: Sequence[str]) -> None:
        """Remove jobs from the database."""
        self._queue.forget(numbers)
        with self._queue.writing() as connection:
            connection.execute(JOBS.delete().where(JOBS.c.id.in_(numbers)))

    def output(self, owner: Owner, number: str) -> Output:
        """What a job made: what its workflow's result names, whatever files there are. Raises ApiProblem."""
        row = self._row(owner, number)
        found = self._queue.workflows([number]).get(number)
        made = found.output if found is not None and found.status == "SUCCESS" else None
        if made is None:
            raise conflict("not_ready", f"the job is {self.jobs([row])[0].status}, and has no output")
        return Output(made["key"], int(made["size"]), _file_name(row), "video/mp4")


def _fingerprint(request: JobRequest) -> str:
    return fingerprint_of(request.model_dump(mode="json", exclude_unset=True))


def _file_name(row: Any) -> str:
    name = str(row.request.get("output_file_name") or f"{row.id}.mp4")
    return name if name.endswith(".mp4") else f"{name}.mp4"


def _told(row: Any, workflow: WorkflowStatus | None, place: int | None) -> Job:
    """What the API says of a row and its workflow; without one it is about to be removed."""
    if workflow is None:
        return _job(row, ("CANCELED", "canceled", ""), None, place)
    ended = workflow.completed_at or workflow.updated_at or 0
    outcome = outcome_of(workflow.status, workflow.error, workflow.workflow_deadline_epoch_ms, int(ended))
    return _job(row, outcome, workflow.output if outcome[0] == "COMPLETED" else None, place)


def _job(row: Any, outcome: tuple[JobStatus, str, str], made: Any, place: int | None) -> Job:
    """outcome : status, error code and its message. made : what the workflow returned."""
    status, code, message = outcome
    finished = row.finished_ms if status in TERMINAL else None
    base = f"/v1/jobs/{row.id}"
    request = row.request
    return Job(
        id=row.id,
        status=status,
        created_at=str(iso(row.created_ms)),
        started_at=iso(row.started_ms),
        completed_at=iso(finished),
        expires_at=iso(row.expires_ms),
        queue_position=place if status == "PENDING" else None,
        attempts=row.attempts,
        progress=JobProgress(**row.progress) if row.progress and status == "PROCESSING" else None,
        output_url=f"{base}/output" if made else None,
        output_duration=None if made is None else made["seconds"],
        output_file_name=_file_name(row),
        error=JobError(code=code, message=message) if code else None,
        notes=[] if made is None else made["notes"],
        retry_of=row.retry_of,
        input=request["input"],
        options=request.get("options", {}),
        priority=row.priority,
        metadata=request.get("metadata", {}),
        urls=JobUrls(get=base, cancel=f"{base}/cancel", events=f"{base}/events", output=f"{base}/output"),
    )
