"""A student of few steps: guidance folded in first, then half the steps, and half of those.

Each stage's network learns, at the time steps that it is sampled at and from latents that the sampler can come to, the
noise whose one DDIM step lands where its teacher does: with guidance at the same step, or with two steps without.
Source: progressive distillation, arXiv 2202.00512; of guided models, arXiv 2210.03142.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lsx.core.sampling import Sampler
from lsx.denoising.schedule import ddim_levels, timesteps

__all__ = [
    "SAMPLER",
    "DistillationStage",
    "Network",
    "Stage",
    "clean_of",
    "ddim_step",
    "halving_stages",
    "noise_between",
    "on",
    "truncated_snr_weights",
    "wide",
]

SAMPLER: Sampler = "ddim-trailing"
"""The spacing that students are made for: it begins at pure noise, where a chunk's latents begin."""

Network = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents [n, 4, F, h, w], int64 time steps [n]) to noise of the latents' shape: a teacher, or the student."""


class Stage(Protocol):
    """One training of a distillation."""

    @property
    def name(self) -> str:
        """The stage's folder."""

    @property
    def steps(self) -> int:
        """How many steps its checkpoints are sampled with."""

    @property
    def guided(self) -> bool:
        """Whether the teacher has guidance, which is to be folded in."""

    @property
    def sampled(self) -> tuple[int, ...]:
        """Numbers of steps that a student is published for; none where what it makes is a teacher alone."""

    def draw(self, timestep: Tensor) -> Tensor:
        """The stage's places int64 [n], 0 first, for `timestep` int64 [n] drawn from 0..999: each as often."""

    def times(self, places: Tensor) -> Tensor:
        """Their time steps, int64 [n]."""

    def loss(self, student: Network, teacher: Network, noisy: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and what the student predicts of `noisy` latents at `places`, of their shape."""


@dataclass(frozen=True, slots=True)
class DistillationStage:
    """A Stage of progressive distillation: it is trained at the time steps of a sampler of `steps`."""

    steps: int
    guided: bool = False
    """Whether the teacher has guidance, which is to be folded in; else it takes two steps to the student's one."""

    @property
    def name(self) -> str:
        """The stage's folder."""
        return "guidance" if self.guided else f"{self.steps}-steps"

    @property
    def sampled(self) -> tuple[int, ...]:
        """The student's own steps."""
        return () if self.guided else (self.steps,)

    def draw(self, timestep: Tensor) -> Tensor:
        """The stage's places int64 [n], 0 first, for `timestep` int64 [n] drawn from 0..999: each as often."""
        return timestep * self.steps // 1000

    def times(self, places: Tensor) -> Tensor:
        """Their time steps, int64 [n]."""
        return on(timesteps(self.steps, SAMPLER), places)[places]

    def loss(self, student: Network, teacher: Network, noisy: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted error of the noise, and the noise."""
        with torch.no_grad():
            wanted = self.target(teacher, noisy, places)
        predicted = student(noisy, self.times(places))
        errors = (predicted - wanted.float()).square().flatten(1).mean(1)
        return (self.weights(places) * errors).mean(), predicted

    def target(self, teacher: Network, noisy: Tensor, places: Tensor) -> Tensor:
        """The noise to predict of `noisy` latents at `places`, of their shape."""
        first = self.times(places)
        if self.guided:
            return teacher(noisy, first)
        here, there = on(ddim_levels(self.steps, SAMPLER), places, noisy.dtype)[places].T
        second = on(timesteps(2 * self.steps, SAMPLER), places)[2 * places + 1]
        between = on(ddim_levels(2 * self.steps, SAMPLER), places, noisy.dtype)[2 * places + 1, 0]
        middle = ddim_step(noisy, teacher(noisy, first), here, between)
        landed = ddim_step(middle, teacher(middle, second), between, there)
        return noise_between(noisy, landed, here, there)

    def weights(self, places: Tensor) -> Tensor:
        """How much the noise's squared error counts, float32 [n]."""
        return truncated_snr_weights(on(ddim_levels(self.steps, SAMPLER), places, torch.float32)[places, 0])


def halving_stages(steps: Sequence[int]) -> list[DistillationStage]:
    """Guidance at twice the first steps, then every halving. steps : as DistillOptions has them."""
    return [DistillationStage(2 * steps[0], guided=True), *(DistillationStage(step) for step in steps)]


def ddim_step(noisy: Tensor, noise: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """DDIM from one noise level to another, eta 0: of the shape of `noisy` [n, ...].

    here, there : the clean signal's share of the power at both, [n].
    """
    clean, there = clean_of(noisy, noise, here), wide(there, noisy)
    return there.sqrt() * clean + (1 - there).sqrt() * noise


def clean_of(noisy: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """The clean estimate, of the shape of `noisy` [n, ...]. share : the clean signal's share of the power, [n]."""
    share = wide(share, noisy)
    return (noisy - (1 - share).sqrt() * noise) / share.sqrt()


def noise_between(noisy: Tensor, landed: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """The noise with which `ddim_step` goes from `noisy` to `landed`; shapes as there."""
    here, there = wide(here, noisy), wide(there, noisy)
    shrunk = (there / here).sqrt()
    return (landed - shrunk * noisy) / ((1 - there).sqrt() - shrunk * (1 - here).sqrt())


def truncated_snr_weights(share: Tensor) -> Tensor:
    """Weights of the noise's squared error that make it max(SNR, 1) times the clean estimate's. share : [n], of power.

    Source: arXiv 2202.00512, section 4.
    """
    return ((1 - share) / share).clamp(min=1)


def on(values: object, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An array as a tensor on the device of another."""
    return torch.as_tensor(values, dtype=dtype, device=like.device)


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Values [n] of the dimensions of `like` [n, ...]."""
    return values.view(-1, *(1,) * (like.dim() - 1))
