"""What a run tells: its progress, and what it did."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lsx.core.clock import FPS
from lsx.faces.speaker import SpeakerChoice

__all__ = ["RUN_REPORT_SCHEMA", "Progress", "ProgressCallback", "RunReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run.

    Examples
    --------
    >>> Progress(frames=16, total=33, fps=2.5).chunks
    1
    """

    frames: int
    """Output frames finished."""
    total: int
    """Output frames in all."""
    fps: float
    """Frames finished per second so far."""
    chunk: int = 1
    """The chunk that is being computed, from 1 on."""
    chunks: int = 1
    """Chunks in all."""
    step: int = 0
    """Denoising steps of that chunk that are done. On a GPU a chunk is one launch, and its steps are not seen."""
    steps: int = 0
    """Denoising steps of a chunk."""
    seconds_left: float | None = None
    """Reckoned from whole chunks and the steps of the one under way; None before the first chunk is whole."""
    looked: int = 0
    """Frames of the video that were looked at before the run, where `speaker` is active."""
    to_look: int = 0
    """Frames that are to be looked at."""


RUN_REPORT_SCHEMA = 1
"""Raised when a field goes or changes its meaning; new ones come without."""

ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did.

    Examples
    --------
    >>> report = RunReport(
    ...     output=None, frames=3, seconds=1.0, faceless=(0, 1), stages={}, waits={}, bottleneck=""
    ... )
    >>> report.faceless_spans
    ((0.0, 0.08),)
    """

    output: Path | None
    """None where it was an open file."""
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
    notes: tuple[str, ...] = ()
    """What was odd about the inputs: a silent sound, a very short one."""
    source_frames: tuple[int, int] = (0, 0)
    """The first frame of the video that was used, and the one after the last, at that rate."""
    fps: float = float(FPS)
    """Frames a second of the result, in the mean where they come unevenly."""
    speed: float = 1.0
    """Frames of the video for one of the result: other than 1 where `extend` is `remap`."""
    choices: tuple[SpeakerChoice, ...] = ()
    """Faces whose mouths moved: from which frame of the video on which track, and whether the one before was lost."""
    chunks: int = 0
    """Chunks of 16 frames of the result."""
    silent_chunks: int = 0
    """Chunks that were not computed, because the sound is silent in all their frames and `silence` is `keep`."""
    saved_chunks: int = 0
    """Chunks that one voice from the first frame to the last would take, and this run did not."""
    seam: float | None = None
    """How far the mouth jumps where chunks meet: the mean absolute change of its region from frame to frame across
    their borders, over that inside them. None where no two chunks met."""
    blended: Literal["latents", "pixels"] | None = None
    """What the frames were blended in that chunks have in common; None without an overlap."""
    repeated_chunks: int = 0
    """Chunks of 16 frames that overflowed and were done again in the bundle's fallback precision."""
    resumed_frames: int = 0
    """Frames that an earlier run had made, which was ended, and from which this one went on."""

    def as_json(self) -> str:
        """The report as JSON, in the form that docs/schemas/run_report.json describes.

        Examples
        --------
        >>> import json
        >>> report = RunReport(
        ...     output=None, frames=3, seconds=1.0, faceless=(), stages={}, waits={}, bottleneck=""
        ... )
        >>> json.loads(report.as_json())["frames"]
        3
        """
        return json.dumps({"schema_version": RUN_REPORT_SCHEMA} | asdict(self), indent=1, default=str) + "\n"

    @property
    def repeated_calls(self) -> int:
        """Deprecated: `repeated_chunks`."""
        warnings.warn("repeated_calls is now called repeated_chunks", DeprecationWarning, stacklevel=2)
        return self.repeated_chunks

    @property
    def faceless_spans(self) -> tuple[tuple[float, float], ...]:
        """Start and end in seconds of each stretch without a face."""
        spans: list[tuple[float, float]] = []
        for index in self.faceless:
            start, end = index / self.fps, (index + 1) / self.fps
            if spans and abs(spans[-1][1] - start) < 1e-9:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        return tuple(spans)
