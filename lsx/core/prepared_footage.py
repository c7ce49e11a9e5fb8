"""What of the footage a preparation has fixed: a run with it leaves these options out, or gives the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsx.core.footage import FootageOptions
from lsx.errors import UsageError

__all__ = ["FIXED", "check_fixed"]

FIXED = ("start", "end", "fps", "speaker")
"""The options of FootageOptions that an avatar is prepared with."""


def check_fixed(asked: FootageOptions, prepared: Mapping[str, Any]) -> None:
    """Raise UsageError where `asked` is something else than what was prepared.

    prepared : the values of `FIXED`, as FootageOptions has them.
    """
    for name, value in prepared.items():
        given = getattr(asked, name)
        if given not in (value, FootageOptions.model_fields[name].default):
            raise UsageError(
                f"{name} is {given}, and the avatar was prepared with {value}; leave {name} out, or prepare another"
            )
    if asked.faces is not None:
        raise UsageError("faces is given, and an avatar has its own; leave faces out")
    speaker = prepared["speaker"]
    for segment in asked.segments or ():
        if segment.speaker not in (None, speaker):
            raise UsageError(
                f"segments: one is spoken by {segment.speaker!r}, and the avatar was prepared with {speaker!r}"
            )
