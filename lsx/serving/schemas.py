"""What goes over HTTP: requests, answers, problems."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from lsx.serving.job_options import JobOptions
from lsx.serving.outside import AddressRefused, split_url
from lsx.serving.statuses import JobStatus

__all__ = ["Asset", "Input", "Job", "JobList", "JobProgress", "JobRequest", "Login", "Problem", "iso"]

_MOST_METADATA, _MOST_METADATA_TEXT = 16, 500
HookEvent = Literal["job.started", "job.completed", "job.failed", "job.rejected", "job.canceled"]
HOOK_EVENTS: tuple[HookEvent, ...] = ("job.completed", "job.failed", "job.rejected", "job.canceled")


def iso(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > _MOST_METADATA:
        raise ValueError(f"at most {_MOST_METADATA} keys")
    if any(len(text) > _MOST_METADATA_TEXT for pair in value.items() for text in pair):
        raise ValueError(f"keys and values of at most {_MOST_METADATA_TEXT} characters")
    return value


def _file_name(value: str) -> str:
    if not value.strip(". ") or any(sign in value for sign in '/\\\0"') or not value.isprintable():
        raise ValueError("a file name without folders")
    return value


def _url(value: str) -> str:
    try:
        split_url(value)
    except AddressRefused as error:
        raise ValueError(str(error)) from None
    return value


_Url = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_url)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Input(_Strict):
    """A video or a sound, uploaded before, or at an address that the server's owner allows; or an avatar."""

    type: Literal["video", "audio", "avatar"]
    asset_id: str | None = Field(default=None, pattern=r"^asset_[0-9a-z]{26}$")
    url: _Url | None = Field(default=None, description="https, on a host of --allow-url")
    avatar_id: str | None = Field(
        default=None, pattern=r"^avatar_[0-9a-z]{26}$", description="with the type avatar, and with no other"
    )


class JobRequest(_Strict):
    """A video whose mouth is to move to a sound."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "input": [
                        {"type": "video", "asset_id": "asset_01k9zq3v0s9g0d9q7y6k2m4n8p"},
                        {"type": "audio", "asset_id": "asset_01k9zq40a1b2c3d4e5f6g7h8j9"},
                    ],
                    "options": {"steps": 20, "guidance": 1.5, "extend": "bounce"},
                    "metadata": {"order": "1234"},
                }
            ]
        },
    )

    input: list[Input] = Field(min_length=1, max_length=2)
    options: JobOptions = Field(default_factory=JobOptions)
    priority: int = Field(default=5, ge=1, le=9, description="1 goes first, 9 last")
    webhook_url: _Url | None = None
    webhook_events_filter: list[HookEvent] = Field(default=list(HOOK_EVENTS), max_length=5)
    output_file_name: Annotated[str, StringConstraints(max_length=120), AfterValidator(_file_name)] | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_metadata)] = Field(default_factory=dict)


class JobProgress(BaseModel):
    """How far a job is."""

    stage: Literal["probe", "prepare", "look", "denoise", "publish"]
    frames: int = 0
    total: int = 0
    fps: float = 0.0
    eta_seconds: float | None = None
    looked: int = 0
    to_look: int = 0


class JobError(BaseModel):
    """Why a job has no result."""

    code: str
    message: str


class JobUrls(BaseModel):
    """Where to go on with a job."""

    get: str
    cancel: str
    events: str
    output: str


class Job(BaseModel):
    """A job, as it is now."""

    id: str
    status: JobStatus
    created_at: str
    started_at: str | None
    completed_at: str | None
    expires_at: str | None
    queue_position: int | None = Field(description="1 is the next; None where it does not wait")
    attempts: int
    progress: JobProgress | None
    output_url: str | None
    output_duration: float | None
    output_file_name: str
    error: JobError | None
    notes: list[str]
    retry_of: str | None
    input: list[Input]
    options: dict[str, Any]
    priority: int
    metadata: dict[str, str]
    urls: JobUrls


class JobList(BaseModel):
    """Some of the caller's jobs, latest first."""

    data: list[Job]
    next_cursor: str | None


class Asset(BaseModel):
    """An upload, and what it is."""

    id: str
    kind: Literal["video", "audio"]
    filename: str
    size: int
    sha256: str
    duration: float
    width: int | None
    height: int | None
    fps: float | None
    created_at: str
    expires_at: str | None


class FieldError(BaseModel):
    """What is wrong with one field."""

    loc: str
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 has it, with a code."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] = Field(default_factory=list)


class Login(_Strict):
    """A key, for a cookie that browsers send."""

    key: Annotated[str, StringConstraints(max_length=200)]
