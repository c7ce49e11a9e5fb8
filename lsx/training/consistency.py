"""A student of any few steps in one training: from every point of a path to pure noise, the same clean latents.

The guided teacher's DDIM goes down the path in strides; the student's estimate before a stride learns to be its own
estimate after it. Source: latent consistency models, arXiv 2310.04378; without an averaged target, arXiv 2310.14189.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lsx.denoising.schedule import ddim_levels, timesteps
from lsx.training.distillation import SAMPLER, Network, clean_of, ddim_step, on, wide

__all__ = ["ConsistencyStage", "boundary_scalings"]

_STRIDES = 40  # of 25 time steps each; their ends hold those of 8, 4, 2 and 1 steps
_HUBER, _DEVIATION, _TIME_SCALE = 1e-3, 0.5, 10.0


@dataclass(frozen=True, slots=True)
class ConsistencyStage:
    """The one training of such a student."""

    sampled: tuple[int, ...]
    """Numbers of steps that it is published for."""
    guided: ClassVar[bool] = True
    name: ClassVar[str] = "consistency"

    @property
    def steps(self) -> int:
        """What its checkpoints are sampled with while it is trained."""
        return self.sampled[0]

    def draw(self, timestep: Tensor) -> Tensor:
        """The places, as `DistillationStage.draw` gives them."""
        return timestep * _STRIDES // 1000

    def times(self, places: Tensor) -> Tensor:
        """The time steps, as `DistillationStage.times` gives them."""
        return on(timesteps(_STRIDES, SAMPLER), places)[places]

    def loss(self, student: Network, teacher: Network, noisy: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The pseudo-Huber distance of both estimates, a scalar, and the noise that is predicted of `noisy`."""
        first = self.times(places)
        here, there = on(ddim_levels(_STRIDES, SAMPLER), places, noisy.dtype)[places].T
        after = (first - 1000 // _STRIDES).clamp(min=0)
        with torch.no_grad():
            landed = ddim_step(noisy, teacher(noisy, first), here, there)
            wanted = _estimate(landed, student(landed, after), there, after)
        torch.clear_autocast_cache()  # in which the weights have no gradient now
        predicted = student(noisy, first)
        error = _estimate(noisy, predicted, here, first) - wanted
        return ((error.square() + _HUBER**2).sqrt() - _HUBER).mean(), predicted


def boundary_scalings(times: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the latents and of the clean estimate is the answer at these time steps [n]; at 0 the latents are it.

    From time step 10 on the first is under 3e-5: the `ddim-trailing` table in the `step` graph samples such a student.
    """
    scaled = _TIME_SCALE * times.double()
    power = scaled.square() + _DEVIATION**2
    return (_DEVIATION**2 / power).float(), (scaled / power.sqrt()).float()


def _estimate(noisy: Tensor, noise: Tensor, share: Tensor, times: Tensor) -> Tensor:
    kept, taken = (wide(scaling, noisy) for scaling in boundary_scalings(times))
    return kept * noisy + taken * clean_of(noisy, noise, share)
