"""What a bench is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsx.core.graph_names import MODEL_GRAPHS
from lsx.errors import UsageError

__all__ = ["MOST_CLIENTS", "SECTIONS", "BenchOptions"]

MOST_CLIENTS = 64

SECTIONS = ("graphs", "chunk", "cold")
"""Sections that need nothing else; a clip, a duration and a sweep are asked for by their own options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to measure, and how."""

    sections: tuple[str, ...] = SECTIONS
    backends: tuple[str, ...] = ()
    """Default every one that runs here."""
    graphs: tuple[str, ...] = MODEL_GRAPHS
    beside: tuple[Path, ...] = ()
    """Bundles of the same checkpoint in other precisions, measured in turn with it."""
    precisions: tuple[str, ...] = ()
    """Precisions to measure, of the bundle, its fallback and those beside it; default all but the fallback's."""
    clip: tuple[Path, Path] | None = None
    avatar: bool = False
    """Whether the clip is also run over a prepared avatar, in turn with the direct run."""
    clients: int | None = None
    """The most clients that run the clip at once."""
    live: bool = False
    """Whether an avatar of the clip speaks live: from its sound to its first picture."""
    duration: float | None = None
    """Seconds of a long run."""
    sweep: bool = False
    truth: Path | None = None
    """The clip's video as it ought to become: the sweep says what every setting costs in lips."""
    auxiliary: Path | None = None
    """Folder with stable_syncnet.pt, which judges what every setting of the sweep makes of the clip."""
    profile: bool = False
    """Whether ONNX Runtime profiles each graph, operator by operator; on a CPU."""
    compiled: bool | None = None
    """Whether torch.compile is a baseline; default on a GPU, where users run it."""
    repeat: int | None = None
    """Rounds; default as many as fit into a little time."""
    price_per_hour: float | None = None
    provider: str = "cpu"
    threads: int | None = None
    trust_code: bool = False

    def __post_init__(self) -> None:
        if "call" in self.sections:  # what a chunk was called
            object.__setattr__(self, "sections", tuple("chunk" if s == "call" else s for s in self.sections))
        for name, names, known in (("sections", self.sections, SECTIONS), ("graphs", self.graphs, MODEL_GRAPHS)):
            unknown = [one for one in names if one not in known]
            if unknown:
                raise UsageError(f"--{name}: no {unknown[0]}; choose from {', '.join(known)}")
        if self.profile and self.provider != "cpu":
            raise UsageError("--profile is of ONNX Runtime's CPU provider; on a GPU use Nsight Systems on lsx bench")
        for name, asked in (("--avatar", self.avatar), ("--clients", self.clients is not None), ("--live", self.live)):
            if asked and self.clip is None:
                raise UsageError(f"{name} is of a clip; give --clip VIDEO AUDIO too")
        if self.clients is not None and not 1 <= self.clients <= MOST_CLIENTS:
            raise UsageError(f"clients is {self.clients}; give a whole number from 1 to {MOST_CLIENTS}")
        for name, value in (("--truth", self.truth), ("--auxiliary", self.auxiliary)):
            if value is not None and not (self.sweep and self.clip):
                raise UsageError(f"{name} is of a clip in a sweep; give --clip VIDEO AUDIO and --sweep too")
        if self.repeat is not None and self.repeat < 1:
            raise UsageError(f"repeat is {self.repeat}; give a whole number from 1 on")
        if self.price_per_hour is not None and not self.price_per_hour >= 0:
            raise UsageError(f"price-per-hour is {self.price_per_hour:g}; give a number from 0 on")
        if self.duration is not None and not self.duration > 0:
            raise UsageError(f"duration is {self.duration:g} s; give more than 0")
