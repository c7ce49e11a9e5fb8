"""What the two sides of a live session tell each other: JSON as text, pictures and sound as binary with a head."""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lsx.errors import UsageError

__all__ = [
    "JPEG",
    "MP4",
    "PCM",
    "Clear",
    "End",
    "LiveOptions",
    "Media",
    "Start",
    "event",
    "read_message",
    "request_of",
]

JPEG, PCM, MP4 = 1, 2, 3
"""Kinds of media: a picture; 40 ms of sound, little-endian int16 at 16 kHz; a fragment of H.264 in MP4."""
_SPEAKING, _LAST = 1, 2
_HEAD = struct.Struct("!BBHIQ")


class LiveOptions(BaseModel):
    """How a live session's frames are made: what is not given is the bundle's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=1, le=20)
    cache_interval: int | Literal["off"] | None = None
    sampler: str | None = None
    seed: int | None = Field(default=None, ge=0, le=2**53 - 1)
    overlap: int = Field(default=4, ge=0, le=8)
    colour_match: bool = False
    sharpen: float = Field(default=0.0, ge=0, le=4)

    @property
    def sampling(self) -> dict[str, Any]:
        """What was given of SamplingOptions."""
        looks = {"overlap", "colour_match", "sharpen"}
        return {name: value for name, value in self.model_dump(exclude=looks).items() if value is not None}


class Start(BaseModel):
    """Opens a session; the first message of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["start"]
    avatar_id: str
    options: LiveOptions = LiveOptions()
    video: Literal["jpeg", "h264"] = "jpeg"
    quality: int = Field(default=80, ge=1, le=100, description="of JPEG; H.264 has CRF 51 at 1 and 1 at 100")
    lead: float = Field(default=0.2, ge=0.04, le=2, description="seconds by which spoken frames may come early")
    end_after: float = Field(default=0.5, ge=0.1, le=10, description="seconds without sound that end an utterance")


class End(BaseModel):
    """The utterance is whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["end"]


class Clear(BaseModel):
    """Forget what was said and is not shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["clear"]


_MESSAGE: TypeAdapter[Start | End | Clear] = TypeAdapter(Annotated[Start | End | Clear, Field(discriminator="type")])


def request_of(text: str) -> Start | End | Clear:
    """A client's message. Raises UsageError, which says what is wrong in it."""
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the message"
        raise UsageError(f"{where}: {first['msg']}") from error


def event(kind: str, **facts: Any) -> dict[str, Any]:
    """A message to the client."""
    return {"type": kind, **facts}


class Media(NamedTuple):
    """A binary message: 16 bytes of head, big-endian, and what it carries.

    The head: kind (1 byte), flags (1), 0 (2), the frame's number (4), its time in microseconds (8).
    """

    kind: int
    number: int
    speaking: bool
    last: bool
    content: bytes

    def packed(self) -> bytes:
        """The message's bytes."""
        flags = _SPEAKING * self.speaking + _LAST * self.last
        return _HEAD.pack(self.kind, flags, 0, self.number % 2**32, 40_000 * self.number) + self.content


class ReadMedia(NamedTuple):
    """A binary message, as a client reads it."""

    kind: int
    number: int
    seconds: float
    speaking: bool
    last: bool
    content: bytes


def read_message(message: bytes) -> ReadMedia:
    """A binary message's parts. Raises UsageError for what is none."""
    if len(message) < _HEAD.size:
        raise UsageError(f"a message of {len(message)} bytes is none of a live session's")
    kind, flags, _, number, microseconds = _HEAD.unpack_from(message)
    parts = bool(flags & _SPEAKING), bool(flags & _LAST), message[_HEAD.size :]
    return ReadMedia(kind, number, microseconds / 1e6, *parts)
