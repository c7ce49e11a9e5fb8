"""LatentSync's four losses of one step of the U-Net, and the U-Net's own input, exactly as the original's.

Source: LatentSync, arXiv 2412.09262 §3.2; training.md's order of operations, checked on recorded arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lsx.models.reference import LATENT_SCALE
from lsx.models.stable_syncnet import StableSyncNet, lower_half
from lsx.training.diffusion import NoiseSchedule, mixed_noise

if TYPE_CHECKING:
    from lsx.metrics.perceptual import Lpips, Trepa
    from lsx.models.vae import Vae

__all__ = ["LatentSyncLoss", "LossTerms", "LossWeights", "UNetBatch", "UNetDraws", "sync_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How much each loss counts; 0 leaves it out, with all that only it needs."""

    reconstruction: float = 1.0
    sync: float = 0.05
    perceptual: float = 0.1
    trepa: float = 10.0
    snr_gamma: float | None = None
    """The gamma of the reconstruction's weights by noise level; None for all alike, as in the original."""

    @property
    def in_pixels(self) -> bool:
        """Whether the clean estimate is decoded at all."""
        return bool(self.sync or self.perceptual or self.trepa)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UNetBatch:
    """What a step is made of."""

    audio: Tensor
    """float32 [n, F, S, D]."""
    mel: Tensor | None = None
    """float32 [n, 1, 80, 52], where SyncNet looks."""
    target: Tensor | None = None
    """Aligned faces float32 [n, F, 3, H, W] in -1..1."""
    reference: Tensor | None = None
    """The same of the frames that show who it is."""
    moments: Tensor | None = None
    """Mean and deviation of the latents of target, masked and reference frames, [n, 3, F, 8, h, w], where they were
    computed before; then no faces are needed but where a loss looks at pixels."""

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> UNetBatch:
        """The batch of collated samples of UNetSamples."""
        names = ("mel", "target", "reference", "moments")
        return cls(audio=batch["audio"], **{name: batch.get(name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UNetDraws:
    """The random numbers of a step, standard normal but for the time step."""

    timesteps: Tensor
    """int64 [n], 0..999."""
    target: Tensor
    """[(n F), 4, h, w], of the latents' sampling; the two below, too."""
    masked: Tensor
    reference: Tensor
    shared: Tensor
    """[n, 4, 1, h, w]."""
    independent: Tensor
    """[n, 4, F, h, w]."""

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> UNetDraws:
        """The random numbers in collated samples of UNetSamples."""
        return cls(
            timesteps=batch["timestep"],
            target=batch["noise.target"].flatten(0, 1),
            masked=batch["noise.masked"].flatten(0, 1),
            reference=batch["noise.reference"].flatten(0, 1),
            shared=batch["noise.shared"],
            independent=batch["noise.independent"],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossTerms:
    """One step's losses, each a scalar tensor; None where it is left out."""

    total: Tensor
    reconstruction: Tensor
    sync: Tensor | None = None
    perceptual: Tensor | None = None
    trepa: Tensor | None = None
    clean: Tensor | None = None
    """The clean estimate [n, 4, F, h, w], and its pixels [(n F), 3, H, W]; None where no loss looks at pixels."""
    pixels: Tensor | None = None

    def scalars(self) -> dict[str, Tensor]:
        """The losses by name; `total` has the gradients."""
        parts = {name: getattr(self, name) for name in ("reconstruction", "sync", "perceptual", "trepa")}
        return {"total": self.total} | {name: value.detach() for name, value in parts.items() if value is not None}


class LatentSyncLoss:
    """The losses over frozen networks. Modules are moved and frozen by the caller.

    mask : float32 [H, W], 1 = keep; alpha : of the mixed noise, None for one noise that all frames share.
    """

    def __init__(
        self,
        vae: Vae,
        mask: Tensor,
        weights: LossWeights,
        *,
        syncnet: StableSyncNet | None = None,
        lpips: Lpips | None = None,
        trepa: Trepa | None = None,
        alpha: float | None = 1.0,
    ) -> None:
        self.vae, self.mask, self.weights, self.alpha = vae, mask, weights, alpha
        self.syncnet, self.lpips, self.trepa = syncnet, lpips, trepa
        self.schedule = NoiseSchedule.of_sampler()

    @property
    def frozen_bytes(self) -> int:
        """Bytes of the frozen networks' parameters."""
        networks: list[Any] = [self.vae, self.syncnet, self.lpips, self.trepa]
        return sum(p.numel() * p.element_size() for n in networks if n is not None for p in n.parameters())

    def to(self, device: torch.device) -> None:
        """Move the frozen networks there."""
        self.vae.to(device)
        self.mask = self.mask.to(device)
        for network in (self.syncnet, self.lpips, self.trepa):
            if network is not None:
                network.to(device)

    @torch.no_grad()
    def _moments(self, batch: UNetBatch) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and deviation [(n F), 4, h, w] of target, masked and reference frames."""
        if batch.moments is not None:
            mean, deviation = batch.moments.chunk(2, dim=3)
            return tuple((mean[:, i].flatten(0, 1), deviation[:, i].flatten(0, 1)) for i in range(3))
        if batch.target is None or batch.reference is None:
            raise ValueError("a batch has faces, or moments of their latents")
        target, reference = batch.target.flatten(0, 1), batch.reference.flatten(0, 1)
        # contiguous: PyTorch's CPU path for channels-last frames is off by up to 2e-3 on masked ones
        encoded = (self.vae.encode(pixels.contiguous()) for pixels in (target, target * self.mask, reference))
        return tuple((latents.mean, latents.deviation) for latents in encoded)

    def inputs(self, batch: UNetBatch, draws: UNetDraws) -> tuple[Tensor, Tensor, Tensor]:
        """The U-Net's `sample` [n, 13, F, h, w], the noisy latents in it, and the noise to predict."""
        count, frames = batch.audio.shape[:2]
        latents = [
            ((mean + deviation * noise) * LATENT_SCALE).unflatten(0, (count, -1)).transpose(1, 2)
            for (mean, deviation), noise in zip(
                self._moments(batch), (draws.target, draws.masked, draws.reference), strict=True
            )
        ]
        clean, masked, reference = latents
        if self.alpha is None:
            noise = draws.shared.expand(-1, -1, frames, -1, -1)
        else:
            noise = mixed_noise(draws.shared, draws.independent, self.alpha)
        noisy = self.schedule.add_noise(clean, noise, draws.timesteps)
        mask = self.mask[::8, ::8].expand(count, 1, frames, -1, -1)
        return torch.cat([noisy, mask, masked, reference], dim=1), noisy, noise

    def _reconstruction(self, predicted: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        if self.weights.snr_gamma is None:
            return F.mse_loss(predicted, noise)
        errors = (predicted - noise).square().flatten(1).mean(1)
        return (self.schedule.min_snr_weights(timesteps, self.weights.snr_gamma) * errors).mean()

    def __call__(
        self, unet: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], batch: UNetBatch, draws: UNetDraws
    ) -> LossTerms:
        """The losses of one step, with gradients for the U-Net's trainable parameters."""
        sample, noisy, noise = self.inputs(batch, draws)
        predicted = unet(sample, draws.timesteps.float(), batch.audio)[0].float()
        return self.terms(
            self._reconstruction(predicted, noise.float(), draws.timesteps), noisy, predicted, batch, draws.timesteps
        )

    def terms(
        self, reconstruction: Tensor, noisy: Tensor, predicted: Tensor, batch: UNetBatch, timesteps: Tensor
    ) -> LossTerms:
        """All losses, of a reconstruction loss that is known and of what `predicted` leaves of `noisy` latents."""
        total = self.weights.reconstruction * reconstruction
        if not self.weights.in_pixels:
            return LossTerms(total=total, reconstruction=reconstruction)
        clean = self.schedule.clean_estimate(noisy, predicted, timesteps)
        pixels = self.vae.decode(clean.transpose(1, 2).flatten(0, 1).contiguous() / LATENT_SCALE)
        if batch.target is None:
            raise ValueError("a loss that looks at pixels needs the faces")
        target, frames = batch.target.flatten(0, 1), batch.audio.shape[1]
        sync = perceptual = trepa = None
        if self.weights.sync and self.syncnet is not None:
            if batch.mel is None:
                raise ValueError("SyncNet's loss needs the mel window")
            looks = lower_half(pixels, self.syncnet.config.resolution)
            sync = sync_loss(self.syncnet, looks, batch.mel, torch.ones_like(batch.mel[:, 0, 0, 0]))
            total = total + self.weights.sync * sync
        if self.weights.perceptual and self.lpips is not None:
            half = pixels.shape[2] // 2
            perceptual = self.lpips.loss(pixels[:, :, half:], target[:, :, half:])
            total = total + self.weights.perceptual * perceptual
        if self.weights.trepa and self.trepa is not None:
            trepa = self.trepa.loss(pixels.unflatten(0, (-1, frames)), target.unflatten(0, (-1, frames)))
            total = total + self.weights.trepa * trepa
        return LossTerms(
            total=total,
            reconstruction=reconstruction,
            sync=sync,
            perceptual=perceptual,
            trepa=trepa,
            clean=clean,
            pixels=pixels,
        )


def sync_loss(syncnet: nn.Module, looks: Tensor, mel: Tensor, together: Tensor) -> Tensor:
    """Binary cross-entropy of SyncNet's cosine. A scalar.

    looks : [n, 48, H, W] in -1..1, by `lower_half`; mel : [n, 1, 80, 52]; together : [n], 1 where they belong together,
    else 0.
    """
    seen, heard = syncnet(looks, mel)
    cosine = F.cosine_similarity(seen, heard)
    with torch.autocast(cosine.device.type, enabled=False):
        loss: Tensor = F.binary_cross_entropy(cosine.float().clamp(0, 1), together.float())
        return loss
