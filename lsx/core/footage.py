"""Which part of the footage is used, and for how long: what a user chooses."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lsx.errors import UsageError

__all__ = ["Extend", "FootageKeywords", "FootageOptions", "Length"]

Length = Literal["audio", "video", "shortest", "longest"]
Extend = Literal["bounce", "loop", "hold", "cut_off", "silence", "remap"]

_LONGEST = 24 * 3600.0


def _seconds(value: object) -> float:
    """Seconds of 12.5, "12.5", "1:02.5" or "1:00:02.5"."""
    parts = value.strip().split(":") if isinstance(value, str) else [value]
    sign = -1.0 if isinstance(parts[0], str) and parts[0].startswith("-") else 1.0
    if isinstance(value, bool) or len(parts) > 3:
        raise ValueError
    total = 0.0
    for part in parts:
        number = abs(float(part)) if isinstance(part, str | int | float) else math.nan
        total = total * 60 + number
    if isinstance(value, int | float):
        sign = math.copysign(1.0, value)
    if not math.isfinite(total) or total > _LONGEST:
        raise ValueError
    return sign * total


_Seconds = Annotated[float, BeforeValidator(_seconds)]


class FootageOptions(BaseModel):
    """Which part of the video is used, when the sound begins, and how long the result lasts.

    Raises UsageError for a value out of its range, and for a name that is none of these.

    Examples
    --------
    >>> FootageOptions(start="1:02.5").start
    62.5
    >>> FootageOptions(extend="backwards")
    Traceback (most recent call last):
    ...
    lsx.errors.UsageError: extend is 'backwards'; give bounce, loop, hold, cut_off, silence or remap
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: Length | None = Field(default=None, description="audio, video, shortest or longest")
    """How long the result is; None is `video` where `extend` is `silence`, and `audio` otherwise."""
    extend: Extend = Field(default="bounce", description="bounce, loop, hold, cut_off, silence or remap")
    """What a video that is too short does: play back and forth, again from the start, hold its last frame, or change
    its speed (`remap`, also where it is too long). `cut_off` extends nothing: the result ends with what ends first.
    `silence` extends the sound alone."""
    remap_limit: float = Field(default=2.0, ge=1, le=8, description="a number in 1..8")
    """How many times faster or slower `remap` may play the video; beyond, it is cut, or plays back and forth."""
    audio_offset: _Seconds = Field(default=0.0, description="seconds, as 0.2, -1.5 or 1:02.5")
    """Seconds by which the sound comes later, silence before it; where negative, its beginning is left out."""
    start: _Seconds = Field(default=0.0, ge=0, description="a second of the video, as 12.5 or 1:02.5")
    """Second of the video at which the part begins that is used, to the nearest frame of 1/25 s."""
    end: _Seconds | None = Field(default=None, ge=0, description="a second of the video after start, as 15 or 1:02.5")
    """Second at which it ends; None, or beyond the video, is the video's end."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_line(error, type(self))) from error
        if self.end is not None and self.end <= self.start:
            raise UsageError(f"end is {self.end:g} and start {self.start:g}; give an end after the start")


def _line(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the first wrong value, and what to give."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in model.model_fields:
        return f"there is no option {name}; choose from {', '.join(model.model_fields)}"
    return f"{name} is {first['input']!r}; give {model.model_fields[name].description}"


class FootageKeywords(TypedDict, total=False):
    """FootageOptions' fields as keywords, but for `length`, which a stream also takes as a number of frames."""

    extend: Extend
    remap_limit: float
    audio_offset: float | str
    start: float | str
    end: float | str | None
