"""Which part of the footage is used, whose mouth moves, and for how long: what a user chooses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lsx.core.speaker_rule import SPEAKERS, SpeakerRule
from lsx.errors import UsageError

__all__ = ["AudioContext", "CompareLayout", "Extend", "FootageKeywords", "FootageOptions", "Length", "Silence"]

Length = Literal["audio", "video", "shortest", "longest"]
Extend = Literal["bounce", "loop", "hold", "cut_off", "silence", "remap"]
AudioContext = Literal["exact", "smooth"]
Silence = Literal["sync", "keep", "close"]
CompareLayout = Literal["side", "stack", "wipe", "difference"]

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


def _rule(text: str) -> str:
    try:
        SpeakerRule.parsed(text)
    except UsageError as error:
        raise ValueError from error
    return text


class FootageOptions(BaseModel):
    """Which part of the video is used, whose mouth moves, when the sound begins, and how long the result lasts.

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

    speaker: Annotated[str, AfterValidator(_rule)] = Field(default="largest", description=SPEAKERS)
    """Whose mouth moves. A place is looked at where a shot begins, and that face is followed; frames without it stay as
    they are. Numbers of tracks are those of `faces`."""
    faces: Path | None = Field(default=None, description="a file that lsx faces wrote")
    """The video's faces, so that they are not looked for again."""

    silence: Silence = Field(default="sync", description="sync, keep or close")
    """What the mouth does in silences of 0.4 s and more: `sync` is what the model makes of them, `keep` leaves the
    video's own mouth and computes nothing, `close` gives the model the tokens of silence. Three frames lead over."""
    audio_context: AudioContext = Field(default="exact", description="exact or smooth")
    """What the audio encoder hears around a moment: `exact`, as the original, the 30 s that it lies in, whose borders
    can be seen; `smooth` 30 s around it, in windows that overlap and lead over, for twice the encoder's calls."""
    compare_layout: CompareLayout = Field(default="side", description="side, stack, wipe or difference")
    """How `compare` shows original and result: beside each other, one above the other, either side of a line that goes
    across in two seconds, or how far they are apart, fourfold."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_line(error, type(self))) from error
        if self.end is not None and self.end <= self.start:
            raise UsageError(f"end is {self.end:g} and start {self.start:g}; give an end after the start")
        rule = self.speaker_rule
        if self.faces is None and (rule.tracks or round(rule.second * 25) > round(self.start * 25)):
            what = "numbers of tracks" if rule.tracks else "a box at a later second than the start"
            raise UsageError(
                f"speaker is {self.speaker!r}: {what} needs faces, a file that lsx faces VIDEO -o tracks.json writes"
            )

    @property
    def speaker_rule(self) -> SpeakerRule:
        """`speaker`, read.

        Examples
        --------
        >>> FootageOptions(speaker="box=10,20,100,50").speaker_rule.box
        (10.0, 20.0, 110.0, 70.0)
        """
        return SpeakerRule.parsed(self.speaker)


def _line(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the first wrong value, and what to give."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in model.model_fields:
        return f"there is no option {name}; choose from {', '.join(model.model_fields)}"
    return f"{name} is {first['input']!r}; give {model.model_fields[name].description}"


class FootageKeywords(TypedDict, total=False):
    """FootageOptions' fields as keywords, but for those that a stream has not, or takes in another form."""

    extend: Extend
    remap_limit: float
    audio_offset: float | str
    start: float | str
    end: float | str | None
    audio_context: AudioContext
    silence: Silence
    speaker: str
    faces: Path | str | None
