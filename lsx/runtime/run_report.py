"""What a run tells: its progress, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lsx.media.video_reader import FPS

__all__ = ["Progress", "ProgressCallback", "RunReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is."""

    frames: int
    """Output frames finished."""
    total: int
    """Output frames in all."""
    fps: float
    """Frames finished per second so far."""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did."""

    output: Path
    frames: int
    """Frames written."""
    seconds: float
    """Wall-clock time."""
    faceless: tuple[int, ...]
    """Indices of frames that passed through, because no face was found in them."""
    stages: dict[str, float]
    """Seconds that each stage worked."""
    waits: dict[str, float]
    """Seconds that each stage waited for the one before or the one after."""
    bottleneck: str
    """The stage that worked longest."""
    repeated_calls: int = 0
    """Calls of 16 frames that overflowed and were done again in the bundle's fallback precision."""

    @property
    def faceless_spans(self) -> tuple[tuple[float, float], ...]:
        """Start and end in seconds of each stretch without a face."""
        spans: list[tuple[float, float]] = []
        for index in self.faceless:
            start, end = index / FPS, (index + 1) / FPS
            if spans and abs(spans[-1][1] - start) < 1e-9:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return tuple(spans)
