"""The avatars as the HTTP side sees them: taken in, told of, removed. It prepares none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from dbos import WorkflowStatus

from lsx.core.prepared_footage import FIXED
from lsx.errors import UsageError
from lsx.serving.avatar_schemas import Avatar, AvatarList, AvatarProgress, AvatarRequest, AvatarStatus, AvatarUrls
from lsx.serving.database import AVATARS, JOBS, PREPARATIONS
from lsx.serving.gpu_queue import Entry, GpuQueue, Owner
from lsx.serving.idempotency import fingerprint_of
from lsx.serving.ids import is_id, keyed_id, new_id
from lsx.serving.job_checks import check_prepared, named_avatar, prepare_footage
from lsx.serving.job_options import named_option
from lsx.serving.pages import cursor_of, is_after, place_of
from lsx.serving.problems import invalid, not_found
from lsx.serving.schemas import JobError, JobRequest, iso
from lsx.serving.statuses import TERMINAL, outcome_of

__all__ = ["AVATAR_WORKFLOW", "AvatarBook", "check_prepare", "video_key"]

AVATAR_WORKFLOW = "avatar"
"""DBOS's name of it."""

_PRIORITY = 5


def check_prepare(request: dict[str, Any]) -> None:
    """Raise ApiProblem for options that `lsx prepare` refuses."""
    try:
        prepare_footage(request)
    except UsageError as error:
        name = named_option(error)
        raise invalid(str(error), name, "invalid_options") from error


def video_key(asset: str, preparation: Any | None) -> str:
    """Where the store has an avatar's video: in its preparation, or before there is one, the upload."""
    return f"uploads/{asset}" if preparation is None else f"{preparation.prefix}/{preparation.facts['source']}"


class AvatarBook:
    """Avatars of all owners. Used from any thread."""

    def __init__(self, queue: GpuQueue) -> None:
        self._queue, self._reader = queue, queue.reader

    def create(
        self, owner: Owner, request: AvatarRequest, key: str | None = None, *, sha256: str | None = None
    ) -> Avatar:
        """Take an avatar in, in one transaction. The same key and request give the same one. Raises ApiProblem.

        sha256 : of the video, where it came with the request; it is then the same request however it was kept.
        """
        content = request.model_dump(mode="json", exclude_unset=True)
        check_prepare(content)
        fingerprint = fingerprint_of(content if sha256 is None else content | {"asset_id": sha256})
        number = keyed_id("avatar", owner.id, key) if key is not None else new_id("avatar")
        video = content["asset_id"]
        entry = Entry(
            table=AVATARS,
            workflow=AVATAR_WORKFLOW,
            number=number,
            owner=owner,
            fingerprint=fingerprint,
            priority=_PRIORITY,
            assets={video: "video"},
            columns=lambda assets: {"request": content, "facts": assets[video].facts},
        )
        self._queue.take(entry)
        return self.get(owner, number)

    def get(self, owner: Owner, number: str) -> Avatar:
        """An avatar. Raises ApiProblem, also for another owner's."""
        return self.avatars([self._row(owner, number)])[0]

    def _row(self, owner: Owner, number: str) -> Any:
        row = None
        if is_id(number):
            with self._reader.connect() as connection:
                row = connection.execute(sa.select(AVATARS).where(AVATARS.c.id == number)).first()
        if row is None or row.owner != owner.id:
            raise not_found("avatar")
        return row

    def video_key(self, owner: Owner, number: str) -> str:
        """Where the store has the video of an avatar. Raises ApiProblem."""
        row = self._row(owner, number)
        query = sa.select(PREPARATIONS).where(PREPARATIONS.c.avatar == number)
        with self._reader.connect() as connection:
            latest = connection.execute(query.order_by(PREPARATIONS.c.created_ms.desc()).limit(1)).first()
        return video_key(row.request["asset_id"], latest)

    def page(self, owner: Owner, limit: int, cursor: str | None) -> AvatarList:
        """The owner's avatars, latest first. Raises ApiProblem for a cursor that this did not give."""
        place = place_of(cursor)
        query = sa.select(AVATARS).where(AVATARS.c.owner == owner.id)
        if place is not None:
            query = query.where(is_after(AVATARS, place))
        query = query.order_by(AVATARS.c.created_ms.desc(), AVATARS.c.id.desc()).limit(limit + 1)
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
        shown = rows[:limit]
        more = cursor_of((shown[-1].created_ms, shown[-1].id)) if len(rows) > limit else None
        return AvatarList(data=self.avatars(shown), next_cursor=more)

    def avatars(self, rows: Sequence[Any]) -> list[Avatar]:
        """The avatars of rows of `AVATARS`, in a few queries however many they are."""
        ids = [row.id for row in rows]
        if not ids:
            return []
        workflows = self._queue.workflows(ids)
        with self._reader.connect() as connection:  # after the workflows: one that ended well has its preparation here
            query = sa.select(PREPARATIONS).where(PREPARATIONS.c.avatar.in_(ids)).order_by(PREPARATIONS.c.created_ms)
            made = connection.execute(query).all()
        first = {preparation.avatar: preparation for preparation in reversed(made)}
        latest = {preparation.avatar: preparation for preparation in made}
        places = self._queue.places(rows)
        return [
            _ready(row, first[row.id], latest[row.id])
            if row.id in latest
            else _unready(row, workflows.get(row.id), places.get(row.id))
            for row in rows
        ]

    def named(self, owner: Owner, request: JobRequest) -> list[Any]:
        """The row of the avatar that a job names, or none. Raises ApiProblem for one that the job cannot have."""
        number = named_avatar(request)
        if number is None:
            return []
        with self._reader.connect() as connection:
            row = connection.execute(sa.select(AVATARS).where(AVATARS.c.id == number)).first()
        if row is None or row.owner != owner.id:
            raise invalid(f"there is no avatar {number}; make it first", "input", "no_such_avatar")
        if self.avatars([row])[0].status == "FAILED":
            raise invalid(f"the avatar {number} could not be prepared", "input", "avatar_failed")
        check_prepared(request, row.request)
        return [row]

    def delete(self, owner: Owner, number: str) -> bool:
        """Cancel where it is not ready, and forget; whether no job that runs reads its files. Raises ApiProblem."""
        self._row(owner, number)
        self._queue.cancel(number)
        self._queue.forget([number])
        with self._queue.writing() as connection:
            connection.execute(AVATARS.delete().where(AVATARS.c.id == number))
            running = sa.select(JOBS.c.request).where(JOBS.c.started_ms.is_not(None), JOBS.c.finished_ms.is_(None))
            return number not in str(connection.execute(running).scalars().all())


def _common(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.request.get("name", ""),
        "created_at": iso(row.created_ms),
        "options": {name: row.request[name] for name in FIXED if name in row.request},
        "urls": AvatarUrls(get=f"/v1/avatars/{row.id}", video=f"/v1/avatars/{row.id}/video"),
    }


def _ready(row: Any, first: Any, latest: Any) -> Avatar:
    """first, latest : its preparations with one bundle after the other."""
    facts = latest.facts
    return Avatar(
        **_common(row),
        status="READY",
        ready_at=iso(first.created_ms),
        frames=facts["frames"],
        seconds=facts["seconds"],
        width=facts["width"],
        height=facts["height"],
        bundle=latest.encoder,
        queue_position=None,
        progress=None,
        error=None,
    )


def _unready(row: Any, workflow: WorkflowStatus | None, place: int | None) -> Avatar:
    """Without a workflow it is about to be removed."""
    status, code, message = "CANCELED", "canceled", ""
    if workflow is not None:
        ended = workflow.completed_at or workflow.updated_at or 0
        deadline = workflow.workflow_deadline_epoch_ms
        status, code, message = outcome_of(workflow.status, workflow.error, deadline, int(ended))
    shown: AvatarStatus = "FAILED" if status in TERMINAL else "PENDING" if status == "PENDING" else "PROCESSING"
    return Avatar(
        **_common(row),
        status=shown,
        ready_at=None,
        frames=None,
        seconds=None,
        width=row.facts["width"],
        height=row.facts["height"],
        bundle=None,
        queue_position=place if shown == "PENDING" else None,
        progress=AvatarProgress(**row.progress) if row.progress and shown == "PROCESSING" else None,
        error=JobError(code=code, message=message) if shown == "FAILED" else None,
    )
