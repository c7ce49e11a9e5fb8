"""What a verification record covers: the settings that were compared, on what, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass

from lsx.bundle.manifest import VerificationRecord
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Precision
from lsx.core.thresholds import THRESHOLDS

__all__ = ["MINIMUM_CHUNKS", "Coverage"]

MINIMUM_CHUNKS = 2
"""Chunks of 16 frames of a real clip from which on a record is more than a smoke check: one chunk has no seam, and
seeded inputs have no face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The settings that one record of `lsx verify` speaks for."""

    backend: str
    engine: str
    """The engines' description of themselves: library, version, provider."""
    steps: int
    sampler: str
    guided: bool
    """Whether guidance was on; its scale is an input of the graphs and does not matter."""
    cache_interval: int
    """DeepCache's interval as it takes effect: 1 is off, and none is longer than the steps."""
    frames: int
    """Frames with a face that were compared, each once."""
    clip: bool
    """Whether they were of a real clip."""
    loosened: tuple[str, ...]
    """Thresholds that were lower than the precision's own."""

    @classmethod
    def of(cls, record: VerificationRecord, precision: Precision) -> Coverage:
        """What `record` of a bundle of `precision` covers. Records of lsx 0.1.0 say it, too."""
        options, own = record.options, THRESHOLDS[precision].as_dict()
        interval = options.get("cache_interval", "None")
        steps = int(options.get("steps", "0"))
        return cls(
            backend=record.backend,
            engine=record.engine,
            steps=steps,
            sampler=options.get("sampler", "ddim"),
            guided=float(options.get("guidance", "1")) > 1,
            cache_interval=_effective(None if interval == "None" else int(interval), steps),
            frames=int(options.get("frames", 16 * int(options.get("calls", "0")))),
            clip=bool(record.inputs),
            loosened=tuple(n for n, value in record.thresholds.items() if value < own.get(n, value)),
        )

    @property
    def smoke_check(self) -> str | None:
        """Why this record is a smoke check and no verification, or None."""
        if not self.clip:
            return "it was made on seeded inputs, not on a clip"
        if self.frames < MINIMUM_CHUNKS * 16:
            return f"{self.frames} frames of a clip were compared; at least {MINIMUM_CHUNKS * 16} are needed"
        if self.loosened:
            return f"{', '.join(self.loosened)} had been loosened"
        return None

    def differs(self, options: SamplingOptions, provider: str) -> str | None:
        """What of these settings was not verified, or None."""
        settings = {
            "steps": (self.steps, options.steps),
            "sampler": (self.sampler, options.sampler),
            "guidance": (_on(self.guided), _on(options.guidance > 1)),
            "cache interval": (self.cache_interval, _effective(options.cache_interval, options.steps)),
        }
        differences = [f"{name} {asked} (verified: {had})" for name, (had, asked) in settings.items() if had != asked]
        if not self.runs_on(provider):
            differences.append(f"provider {provider} (verified: {self.engine})")
        return ", ".join(differences) or None

    def runs_on(self, provider: str) -> bool:
        """Whether the engines were of this provider; it matters to onnxruntime alone."""
        return self.backend != "onnxruntime" or f"{provider.upper()}ExecutionProvider" in self.engine

    @property
    def settings(self) -> tuple[object, ...]:
        """The key of a record: one with the same replaces it, any other stands beside it."""
        kind = self.engine.rpartition(" ")[2]
        return self.backend, kind, self.steps, self.sampler, self.guided, self.cache_interval

    def __str__(self) -> str:
        cache = "no DeepCache" if self.cache_interval == 1 else f"cache interval {self.cache_interval}"
        inputs = f"{self.frames / 25:.2f} s of a clip" if self.clip else "seeded inputs"
        return (
            f"{self.backend}, {self.sampler}, {self.steps} steps, guidance {_on(self.guided)}, {cache}, on {inputs} "
            f"({self.frames} frames)"
        )


def _on(guided: bool) -> str:
    return "on" if guided else "off"


def _effective(interval: int | None, steps: int) -> int:
    """An interval of 1 is off; one longer than the schedule means its first step alone, whatever its length."""
    return 1 if interval is None else min(interval, max(steps, 1))
