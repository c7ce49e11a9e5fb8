"""Several sounds for one video: who says what from when to when, as a user gives it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lsx.core.keywords import named_alone
from lsx.core.seconds import Seconds
from lsx.core.speaker_rule import SPEAKERS, speaker_text
from lsx.errors import UsageError

__all__ = ["Segment", "read_segments"]

_NAMES = {"startTime": "start", "endTime": "end", "audioInput": "audio"}
"""What sync.so calls them."""


@named_alone
class Segment(BaseModel):
    """A sound that a face of the video says, from one second of the video to another.

    Raises UsageError for a value out of its range, and for a name that is none of these.

    Examples
    --------
    >>> Segment(start=1, end="0:03.5", audio="first.wav").end
    3.5
    >>> Segment(start=2, end=1, audio="first.wav")
    Traceback (most recent call last):
    ...
    lsx.errors.UsageError: end is 1 and start 2; give an end after the start
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Seconds = Field(ge=0, description="a second of the video, as 12.5 or 1:02.5")
    """Second of the video at which the sound begins; its mouth moves from the nearest frame of 1/25 s on."""
    end: Seconds = Field(ge=0, description="a second of the video after start, as 15 or 1:02.5")
    """Second at which it ends; what the sound has beyond is left out, what it lacks is silence."""
    audio: Path = Field(description="the path of a sound")
    """Any file with an audio stream."""
    speaker: Annotated[str | None, AfterValidator(speaker_text)] = Field(default=None, description=SPEAKERS)
    """The face whose mouth moves; None is the run's own `speaker`."""
    audio_offset: Seconds = Field(default=0.0, description="seconds, as 0.2, -1.5 or 1:02.5")
    """Seconds by which the sound comes later than `start`; where negative, its beginning is left out."""
    volume: float = Field(default=1.0, ge=0, le=10, description="a number in 0..10")
    """How loud, as a factor of the samples."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(wrong_value(error, type(self))) from error

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end <= self.start:
            raise UsageError(f"end is {self.end:g} and start {self.start:g}; give an end after the start")
        return self


def wrong_value(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the first wrong value, and what to give."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in model.model_fields:
        return f"there is no option {name}; choose from {', '.join(model.model_fields)}"
    if first["type"] == "missing":
        return f"there is no {name}; give {model.model_fields[name].description}"
    return f"{name} is {first['input']!r}; give {model.model_fields[name].description}"


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The segments in a .csv with a header, or a .json with a list, or an object with `segments`.

    Columns and keys are Segment's; sync.so's are understood: `startTime`, `endTime`, and `audioInput` with the `refId`
    of an entry of `input`, whose `url` is then a path. Paths are relative to the file's folder. Raises UsageError with
    the segment's number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix not in (".csv", ".json"):
            raise UsageError(f"{path}: give a .csv or a .json file")
        content = list(csv.DictReader(text.splitlines())) if path.suffix == ".csv" else json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    inputs: dict[str, Any] = {}
    if isinstance(content, dict):
        listed = content.get("input") or []
        inputs = {str(one.get("refId")): one.get("url") for one in listed if isinstance(one, dict)}
        content = content.get("segments")
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path}: no segment in it; give a list of objects with start, end and audio")
    try:
        return segments_of(content, path.parent, inputs)
    except UsageError as error:
        raise UsageError(f"{path}, {error}") from error


def segments_of(rows: Iterable[Any], folder: Path, inputs: Mapping[str, Any] | None = None) -> tuple[Segment, ...]:
    """Segments in the order of their beginnings. Raises UsageError with the number of the first that is wrong.

    rows : segments, or their fields; paths in these are relative to `folder`. inputs : paths by sync.so's `refId`.
    """
    segments = []
    for number, row in enumerate(rows, 1):
        try:
            segments.append(row if isinstance(row, Segment) else _segment(row, folder, inputs or {}))
        except UsageError as error:
            raise UsageError(f"segment {number}: {error}") from error
    return tuple(sorted(segments, key=lambda segment: (segment.start, segment.end)))


def _segment(given: Any, folder: Path, inputs: Mapping[str, Any]) -> Segment:
    if not isinstance(given, Mapping):
        raise UsageError(f"it is {given!r}; give an object with start, end and audio")
    values = {_NAMES.get(str(name).strip(), str(name).strip()): value for name, value in given.items()}
    values = {name: value for name, value in values.items() if value is not None and value != ""}
    if isinstance(values.get("audio"), Mapping):
        values |= _referred(values["audio"], inputs)
    segment = Segment(**{name: _number(name, value) for name, value in values.items()})
    return segment.model_copy(update={"audio": folder / segment.audio})


def _number(name: str, value: Any) -> Any:
    """What a cell of CSV means."""
    try:
        return float(value) if name == "volume" and isinstance(value, str) else value
    except ValueError:
        return value  # which Segment refuses in its own words


def _referred(audio: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Path and offset of sync.so's `audioInput`."""
    reference = str(audio.get("refId"))
    if not isinstance(inputs.get(reference), str):
        raise UsageError(f"audioInput refers to {reference!r}, which is none of the file's input")
    return {"audio": inputs[reference], "audio_offset": -float(audio.get("startTime") or 0)}
