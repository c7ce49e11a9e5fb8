"""What a training says of its steps and of its end, and where that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lsx.training.config import Settings

__all__ = ["StepReport", "TrainReport", "last_step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step, as progress tells it."""

    step: int
    """Steps done."""
    steps: int
    losses: Mapping[str, float]
    gradient_norm: float
    """The gradient's norm before clipping."""
    lr: float
    seconds: float
    """A step, on average of late."""
    memory: float
    """Bytes: the GPU's peak, or this process's on a CPU."""
    skipped: int
    """Steps so far whose numbers were not finite."""

    @property
    def seconds_left(self) -> float:
        """Seconds until the last step is done."""
        return (self.steps - self.step) * self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What became of a training."""

    steps: int
    skipped: int
    checkpoint: Path
    losses: Mapping[str, float]
    """Losses of the last step."""


def last_step(settings: Settings, count: int, world: int = 1) -> int:
    """The step at which a training of `count` samples ends."""
    if settings.max_train_epochs < 1:
        return settings.max_train_steps
    of_one_step = settings.batch_size * settings.gradient_accumulation_steps * world
    return min(settings.max_train_steps, math.ceil(settings.max_train_epochs * count / of_one_step))
