"""The VAE's decoder, trained on with what the U-Net makes of noise.

A VAE learns to draw the latents of its own encoder. What the U-Net makes of a sound differs from those by six times the
VAE's own error at the mouth, and in ways of its own. So the decoder sees the U-Net's estimates of clips to train on, at
noise levels in which the mouth's shape can still be seen, and is to draw the clips' pixels. Estimates of more noise are
of another shape, and teach it to blur. The encoder stays, and with it the latents that the U-Net knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from examples.tiny.vae import descend, pixel_weight
from lsx.models.checkpoint import Checkpoint
from lsx.models.reference import LATENT_SCALE
from lsx.models.unet import UNet3D
from lsx.models.vae import Vae
from lsx.training.feature_store import TokenStore
from lsx.training.losses import LatentSyncLoss, LossWeights, UNetBatch, UNetDraws
from lsx.training.samples import SampleOptions, UNetSamples, usable_rows
from lsx.training.shards import DataSet

__all__ = ["Estimates", "adapt_decoder", "estimates"]

STEPS, WINDOWS = 400, 300
_NOISE_LEVELS = range(50, 700)
_GUIDANCE = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What a U-Net takes noisy latents for, and what they are of."""

    latents: Tensor
    """float32 [n, 4, h, w], scaled as the U-Net sees them."""
    faces: Tensor
    """uint8 [n, 3, R, R]."""


@torch.no_grad()
def estimates(checkpoint: Checkpoint, data: DataSet, windows: int = WINDOWS, *, seed: int = 2) -> Estimates:
    """The U-Net's estimates of `windows` windows of 16 frames, with guidance, each at a noise level of its own."""
    unet, random = checkpoint.unet().eval(), np.random.default_rng(seed)
    loss = LatentSyncLoss(checkpoint.vae(), torch.from_numpy(checkpoint.mask()), LossWeights())
    tokens = TokenStore.of(data, checkpoint.hashes()["whisper"])
    options = SampleOptions(seed=seed, window=checkpoint.spec.audio_window)
    samples = UNetSamples(data, usable_rows(data, data.info.resolution), tokens, options, mel=False)
    latents, faces = [], []
    for number in range(windows):
        sample = samples[number]
        sample["timestep"] = torch.tensor(int(random.choice(_NOISE_LEVELS)))
        latents.append(_estimate(unet, loss, {name: value[None] for name, value in sample.items()}))
        faces.append((sample["target"] * 127.5 + 127.5).round().to(torch.uint8))
    return Estimates(torch.cat(latents), torch.cat(faces))


def _estimate(unet: UNet3D, loss: LatentSyncLoss, batch: Mapping[str, Tensor]) -> Tensor:
    """[16, 4, h, w] of a batch of one window."""
    audio, timesteps = batch["audio"], batch["timestep"]
    inputs, noisy, _ = loss.inputs(UNetBatch.of(batch), UNetDraws.of(batch))
    both = torch.cat([torch.zeros_like(audio), audio])
    unheard, heard = unet(inputs.expand(2, -1, -1, -1, -1), timesteps.float(), both)[0].chunk(2)
    noise = unheard + _GUIDANCE * (heard - unheard)
    return loss.schedule.clean_estimate(noisy, noise, timesteps)[0].transpose(0, 1)


def adapt_decoder(
    vae: Vae, seen: Estimates, steps: int = STEPS, *, batch: int = 8, lr: float = 3e-4, seed: int = 3
) -> Vae:
    """Train the decoder on `seen` under the squared error, most of it at the mouth; returns `vae`.

    Deterministic on a CPU with one thread count.
    """
    random, weight = np.random.default_rng(seed), pixel_weight(seen.faces.shape[-1])
    vae.requires_grad_(False)
    trained = [p for name, p in vae.named_parameters() if name.startswith(("decoder.", "post_quant_conv."))]
    for parameter in trained:
        parameter.requires_grad_(True)

    def loss_at(_step: int) -> Tensor:
        chosen = torch.from_numpy(random.choice(len(seen.faces), batch, replace=False))
        drawn = vae.decode(seen.latents[chosen] / LATENT_SCALE)
        loss: Tensor = ((drawn - (seen.faces[chosen] / 127.5 - 1)).square() * weight).mean()
        return loss

    descend("decoder", trained, steps, lr, loss_at)
    return vae.eval().requires_grad_(False)
