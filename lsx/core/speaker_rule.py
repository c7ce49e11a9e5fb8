"""The face whose mouth is to move: what a user chooses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lsx.errors import UsageError

__all__ = ["SPEAKERS", "SpeakerRule", "speaker_text"]

_PLACES = ("largest", "left", "center", "right", "active", "all")
_BOX = re.compile(r"box=(-?[\d.]+),(-?[\d.]+),([\d.]+),([\d.]+)(?:@([\d.:]+))?")
SPEAKERS = "largest, left, center, right, active, all, a track's number, several with commas, or box=X,Y,W,H@SECONDS"
"""What may be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerRule:
    """What a user said of who speaks. Make one with `parsed`."""

    place: str = "largest"
    """largest, left, center, right, active, all; `tracks` and `box` go first."""
    tracks: tuple[int, ...] = ()
    """Numbers of tracks, each of which speaks where it is there."""
    box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1 of the face, in frame pixels."""
    second: float = 0.0
    """Second of the video at which `box` holds."""
    text: str = ""
    """The rule as it was written."""

    @classmethod
    def parsed(cls, text: str) -> SpeakerRule:
        """Read `largest`, `2`, `1,4` or `box=X,Y,W,H@SECONDS`. Raises UsageError."""
        if text in _PLACES:
            return cls(place=text, text=text)
        if re.fullmatch(r"\d+(,\d+)*", text):
            return cls(tracks=tuple(int(number) for number in text.split(",")), text=text)
        found = _BOX.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            x, y, width, height = (float(part) for part in found.groups()[:4])
            second = 0.0
            for part in (found[5] or "0").split(":"):
                second = 60 * second + float(part)
        except ValueError as error:
            raise UsageError(f"speaker is {text!r}; give {SPEAKERS}") from error
        if width <= 0 or height <= 0:
            raise UsageError(f"speaker is {text!r}, a box without pixels; give {SPEAKERS}")
        return cls(box=(x, y, x + width, y + height), second=second, text=text)


def speaker_text(text: str | None) -> str | None:
    """The text of a rule, checked; for pydantic. Raises ValueError."""
    try:
        if text is not None:
            SpeakerRule.parsed(text)
    except UsageError as error:
        raise ValueError from error
    return text
