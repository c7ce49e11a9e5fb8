"""A student of few steps: guidance folded in first, then half the steps, and half of those.

Each stage's network learns, at the time steps that it is sampled at and from latents that the sampler can come to, the
noise whose one DDIM step lands where its teacher does: with guidance at the same step, or with two steps without.
Source: progressive distillation, arXiv 2202.00512; of guided models, arXiv 2210.03142.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsx.core.sampling import Sampler
from lsx.denoising.schedule import ddim_levels, timesteps

__all__ = [
    "SAMPLER",
    "DistillationStage",
    "Teacher",
    "ddim_step",
    "noise_between",
    "stages_of",
    "truncated_snr_weights",
]

SAMPLER: Sampler = "ddim-trailing"
"""The spacing that students are made for: it begins at pure noise, where a chunk's latents begin."""

Teacher = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy latents [n, 4, F, h, w], int64 time steps [n], audio [n, F, S, D]) to noise of the latents' shape."""


@dataclass(frozen=True, slots=True)
class DistillationStage:
    """One training of a student."""

    steps: int
    """Time steps that it is trained at: those of a sampler of so many."""
    guided: bool = False
    """Whether the teacher has guidance, which is to be folded in; else it takes two steps to the student's one."""

    @property
    def name(self) -> str:
        """The stage's folder."""
        return "guidance" if self.guided else f"{self.steps}-steps"

    def draw(self, timestep: Tensor) -> Tensor:
        """The stage's places int64 [n], 0 first, for `timestep` int64 [n] drawn from 0..999: each as often."""
        return timestep * self.steps // 1000

    def times(self, places: Tensor) -> Tensor:
        """Their time steps, int64 [n]."""
        return _on(timesteps(self.steps, SAMPLER), places)[places]

    def target(self, teacher: Teacher, noisy: Tensor, places: Tensor, audio: Tensor) -> Tensor:
        """The noise to predict of `noisy` latents at `places`, of their shape."""
        first = self.times(places)
        if self.guided:
            return teacher(noisy, first, audio)
        here, there = _on(ddim_levels(self.steps, SAMPLER), places, noisy.dtype)[places].T
        second = _on(timesteps(2 * self.steps, SAMPLER), places)[2 * places + 1]
        between = _on(ddim_levels(2 * self.steps, SAMPLER), places, noisy.dtype)[2 * places + 1, 0]
        middle = ddim_step(noisy, teacher(noisy, first, audio), here, between)
        landed = ddim_step(middle, teacher(middle, second, audio), between, there)
        return noise_between(noisy, landed, here, there)

    def weights(self, places: Tensor) -> Tensor:
        """How much the noise's squared error counts, float32 [n]."""
        return truncated_snr_weights(_on(ddim_levels(self.steps, SAMPLER), places, torch.float32)[places, 0])


def stages_of(steps: Sequence[int]) -> list[DistillationStage]:
    """Guidance at twice the first steps, then every halving. steps : as DistillOptions has them."""
    return [DistillationStage(2 * steps[0], guided=True), *(DistillationStage(step) for step in steps)]


def ddim_step(noisy: Tensor, noise: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """DDIM from one noise level to another, eta 0: of the shape of `noisy` [n, ...].

    here, there : the clean signal's share of the power at both, [n].
    """
    here, there = _wide(here, noisy), _wide(there, noisy)
    clean = (noisy - (1 - here).sqrt() * noise) / here.sqrt()
    return there.sqrt() * clean + (1 - there).sqrt() * noise


def noise_between(noisy: Tensor, landed: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """The noise with which `ddim_step` goes from `noisy` to `landed`; shapes as there."""
    here, there = _wide(here, noisy), _wide(there, noisy)
    shrunk = (there / here).sqrt()
    return (landed - shrunk * noisy) / ((1 - there).sqrt() - shrunk * (1 - here).sqrt())


def truncated_snr_weights(share: Tensor) -> Tensor:
    """Weights of the noise's squared error that make it max(SNR, 1) times the clean estimate's. share : [n], of power.

    Source: arXiv 2202.00512, section 4.
    """
    return ((1 - share) / share).clamp(min=1)


def _on(values: object, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.as_tensor(values, dtype=dtype, device=like.device)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.dim() - 1))
