"""Noise of training: what is added to clean latents, and what one prediction says the clean ones are.

Source: LatentSync, arXiv 2412.09262; the mixed noise is of PYoCo, arXiv 2305.10474; the weights of Min-SNR,
arXiv 2303.09556.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsx.models import reference

__all__ = ["NoiseSchedule", "mixed_noise"]


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """The sampler's own betas as a training schedule of 1000 steps."""

    alphas_cumprod: Tensor
    """float32 [1000], share of the clean signal's power at each step."""

    @classmethod
    def of_sampler(cls) -> NoiseSchedule:
        """The schedule that LatentSync's DDIM samples on."""
        return cls(reference.scheduler().alphas_cumprod)

    @property
    def steps(self) -> int:
        """Training steps, of which a clip gets one drawn uniformly."""
        return len(self.alphas_cumprod)

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        share = self.alphas_cumprod.to(like.device)[timesteps].view(-1, *(1,) * (like.dim() - 1))
        return share.sqrt().to(like.dtype), (1 - share).sqrt().to(like.dtype)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents of `clean` [n, ...] at int64 `timesteps` [n]."""
        signal, spread = self._scales(timesteps, clean)
        return signal * clean + spread * noise

    def clean_estimate(self, noisy: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents that a predicted `noise` leaves, not clipped. Shapes as in `add_noise`."""
        signal, spread = self._scales(timesteps, noisy)
        return (noisy - spread * noise) / signal

    def min_snr_weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Weights float32 [n] of the noise's error at int64 `timesteps` [n]: 1 where the signal's power is at most
        `gamma` times the noise's, `gamma` through that ratio where it is more.
        """
        share = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return (gamma * (1 - share) / share).clamp(max=1)


def mixed_noise(shared: Tensor, independent: Tensor, alpha: float = 1.0) -> Tensor:
    """Unit noise with a part that all frames share: [n, 4, F, h, w].

    shared : standard normal [n, 4, 1, h, w]; independent : standard normal [n, 4, F, h, w]; alpha : their ratio.
    """
    power = alpha**2 / (1 + alpha**2)
    return float(torch.tensor(power).sqrt()) * shared + float(torch.tensor(1 - power).sqrt()) * independent
