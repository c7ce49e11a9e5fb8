"""What the API is asked and answers, each call once: both clients send these.

Requests and answers are the server's own models, so that neither side lags behind the other.
"""

from __future__ import annotations

import json
import mimetypes
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError

from lsx.errors import MediaError, ServerRefused, UsageError
from lsx.serving.avatar_schemas import Avatar, AvatarList, AvatarRequest
from lsx.serving.schemas import Asset, Job, JobList, JobRequest
from lsx.serving.statuses import JobStatus

__all__ = [
    "Call",
    "JobFields",
    "Page",
    "asset_of",
    "avatar",
    "avatar_page",
    "cancel",
    "delete",
    "inputs_of",
    "job",
    "job_page",
    "media_type",
    "models",
    "prepare",
    "retry",
    "submit",
    "upload",
]

_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)
_Listed_co = TypeVar("_Listed_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_T]):
    """A request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[bytes], _T]
    """Takes the body of an answer of status 2xx."""
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """JSON."""
    file: Path | None = None
    """What is sent as the body instead."""
    form: Mapping[str, Path] = field(default_factory=dict)
    """Files that are sent in a form, by the names of their parts, beside `body` as its part `job`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0
    """How long the server may hold the answer back."""


def _reading(model: type[_M]) -> Callable[[bytes], _M]:
    def read(body: bytes) -> _M:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise ServerRefused(
                f"the server's answer is no {model.__name__} ({error.errors()[0]['msg']}). Is it an lsx serve of now?",
                status=200,
                code="not_understood",
            ) from error

    return read


def _nothing(_body: bytes) -> None:
    pass


class JobFields(TypedDict, total=False):
    """What a job may have besides its video and sound, see the API's JobRequest."""

    options: Mapping[str, Any]
    priority: int
    webhook_url: str
    webhook_events_filter: Sequence[str]
    output_file_name: str
    metadata: Mapping[str, str]


def inputs_of(video: Path | str, audio: Path | str | None) -> list[tuple[Path | None, dict[str, str]]]:
    """For each input a file to upload, or None, and what the request says of it. Raises MediaError."""
    given = {"video": video} | ({} if audio is None else {"audio": audio})
    return [_input_of(kind, str(source)) for kind, source in given.items()]


def _input_of(kind: str, source: str) -> tuple[Path | None, dict[str, str]]:
    if source.startswith(("https://", "http://")):
        return None, {"type": kind, "url": source}
    if Path(source).is_file():
        if not os.access(source, os.R_OK):
            raise MediaError(f"{source}: cannot be read: its permissions do not allow it")
        return Path(source), {"type": kind}
    if source.startswith("asset_"):
        return None, {"type": kind, "asset_id": source}
    if source.startswith("avatar_") and kind == "video":
        return None, {"type": "avatar", "avatar_id": source}
    raise MediaError(f"{source}: no such file. Give a path, an address, or the id of what the server has")


def asset_of(video: Path | str) -> tuple[Path | None, str]:
    """The file to upload, or None, and the id of a video that is uploaded. Raises MediaError, UsageError."""
    [(file, given)] = inputs_of(video, None)
    if file is None and "asset_id" not in given:
        raise UsageError(f"an avatar is prepared from a file or the id of an uploaded video; {video} is neither")
    return file, given.get("asset_id", "")


def upload(path: Path) -> Call[Asset]:
    """A video or a sound."""
    return Call(
        method="POST",
        path="/v1/assets",
        params={"filename": path.name},
        headers={"Content-Type": media_type(path)},
        file=path,
        read=_reading(Asset),
    )


def submit(
    video: Path | str, audio: Path | str | None, idempotency_key: str | None, more: Mapping[str, Any]
) -> Call[Job]:
    """A new job. more : fields of JobRequest. Raises MediaError, and UsageError for what the server would refuse.

    Files go in the same request: then the server knows it again under its key by what is in them.
    """
    given = inputs_of(video, audio)
    request = _checked(JobRequest, {"input": [told for _, told in given], **more})
    form = {told["type"]: file for file, told in given if file is not None}
    told = request.model_dump(mode="json", exclude_unset=True)
    told["input"] = [one for one in told["input"] if one["type"] not in form]
    return Call(
        method="POST",
        path="/v1/jobs",
        headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        body=json.dumps(told).encode(),
        form=form,
        read=_reading(Job),
    )


def media_type(path: Path) -> str:
    """What a file is by its name."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _checked(model: type[_M], given: Mapping[str, Any]) -> _M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("options",))
        raise UsageError(f"{place}: {first['msg']}") from error


def job(job_id: str, wait: float) -> Call[Job]:
    """A job, now or when it has ended; wait : seconds, up to 60."""
    params = {"wait": f"{min(wait, 60):g}"} if wait > 0 else {}
    return Call(method="GET", path=f"/v1/jobs/{job_id}", params=params, read=_reading(Job), seconds=min(wait, 60))


class Page(Protocol[_Listed_co]):
    """Some of a list, and where it goes on."""

    @property
    def data(self) -> Sequence[_Listed_co]:
        """In the list's order."""

    @property
    def next_cursor(self) -> str | None:
        """None on the last page."""


def job_page(status: JobStatus | None, limit: int, cursor: str | None) -> Call[Page[Job]]:
    """Jobs, latest first."""
    params = {"limit": str(limit)} | ({"status": status} if status else {}) | ({"cursor": cursor} if cursor else {})
    return Call(method="GET", path="/v1/jobs", params=params, read=_reading(JobList))


def cancel(job_id: str) -> Call[Job]:
    """End a job."""
    return Call(method="POST", path=f"/v1/jobs/{job_id}/cancel", read=_reading(Job))


def retry(job_id: str, idempotency_key: str | None) -> Call[Job]:
    """A new job like one that failed."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Call(method="POST", path=f"/v1/jobs/{job_id}/retry", headers=headers, read=_reading(Job))


def delete(what: str, number: str) -> Call[None]:
    """Forget a job or an avatar. what : jobs or avatars."""
    return Call(method="DELETE", path=f"/v1/{what}/{number}", read=_nothing)


def prepare(asset_id: str, name: str, options: Mapping[str, Any]) -> Call[Avatar]:
    """A new avatar of an uploaded video."""
    request = _checked(AvatarRequest, {"asset_id": asset_id, "name": name, **options})
    return Call(
        method="POST",
        path="/v1/avatars",
        body=request.model_dump_json(exclude_unset=True).encode(),
        read=_reading(Avatar),
    )


def avatar(avatar_id: str) -> Call[Avatar]:
    """An avatar."""
    return Call(method="GET", path=f"/v1/avatars/{avatar_id}", read=_reading(Avatar))


def avatar_page(limit: int, cursor: str | None) -> Call[Page[Avatar]]:
    """Avatars, latest first."""
    params = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
    return Call(method="GET", path="/v1/avatars", params=params, read=_reading(AvatarList))


def models() -> Call[dict[str, Any]]:
    """What the server runs."""
    return Call(method="GET", path="/v1/models", read=json.loads)
