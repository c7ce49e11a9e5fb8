"""What goes over HTTP of avatars."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lsx.serving.job_options import PrepareOptions
from lsx.serving.schemas import JobError

__all__ = ["Avatar", "AvatarList", "AvatarProgress", "AvatarQuery", "AvatarRequest", "AvatarStatus", "AvatarUrls"]

AvatarStatus = Literal["PENDING", "PROCESSING", "READY", "FAILED"]

_Name = Annotated[str, StringConstraints(max_length=120)]


class AvatarRequest(PrepareOptions):
    """A video that is prepared once, for any number of jobs."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"asset_id": "asset_01k9zq3v0s9g0d9q7y6k2m4n8p", "name": "Anna", "start": 1.5, "end": 9}]
        },
    )

    asset_id: str = Field(pattern=r"^asset_[0-9a-z]{26}$", description="an uploaded video")
    name: _Name = ""


class AvatarQuery(PrepareOptions):
    """The same beside a body that is the video."""

    model_config = ConfigDict(extra="forbid")

    filename: Annotated[str, StringConstraints(max_length=200)] = ""
    name: _Name = ""


class AvatarProgress(BaseModel):
    """How far a preparation is."""

    stage: Literal["prepare", "publish"]
    frames: int = 0
    total: int = 0


class AvatarUrls(BaseModel):
    """Where to go on with an avatar."""

    get: str
    video: str


class Avatar(BaseModel):
    """An avatar, as it is now."""

    id: str
    name: str
    status: AvatarStatus
    created_at: str
    ready_at: str | None
    frames: int | None = Field(description="of the part that was prepared")
    seconds: float | None
    width: int | None
    height: int | None
    bundle: str | None = Field(description="digest of the VAE encoder it was last prepared with, /v1/models' `encoder`")
    options: dict[str, Any] = Field(description="what it is prepared with, and jobs with it then have")
    queue_position: int | None = Field(description="1 is the next; None where it does not wait")
    progress: AvatarProgress | None
    error: JobError | None
    urls: AvatarUrls


class AvatarList(BaseModel):
    """Some of the caller's avatars, latest first."""

    data: list[Avatar]
    next_cursor: str | None
