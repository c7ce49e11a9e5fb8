"""Seconds, as people write them."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BeforeValidator

__all__ = ["Seconds"]

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


Seconds = Annotated[float, BeforeValidator(_seconds)]
"""A number of seconds of at most a day, also as a time: 12.5, "1:02.5"."""
