"""The reference: one 16-frame chunk in plain PyTorch, in the original's order of operations. Device-agnostic.

Schedulers come from diffusers, so that the runtime's coefficient tables are checked against something independent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lsx.core.model_spec import LATENT_SCALE
from lsx.core.sampling import Sampler, SamplingOptions
from lsx.models.unet import UNet3D
from lsx.models.whisper import AudioEncoder

if TYPE_CHECKING:
    from lsx.models.vae import Vae

__all__ = [
    "LATENT_SCALE",
    "audio_states",
    "audio_tokens",
    "decode",
    "denoise",
    "encode",
    "log_mel",
    "paste",
    "scheduler",
]

_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}


def scheduler(sampler: Sampler = "ddim") -> Any:
    """LatentSync's scheduler, DDIM without clipping; or another made from the same configuration."""
    # they bring SciPy's statistics along, which nothing else here needs
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if sampler == "dpm++2m":
        return DPMSolverMultistepScheduler(**_BETAS)
    spacing = {"timestep_spacing": "trailing"} if sampler == "ddim-trailing" else {}
    return DDIMScheduler(**_BETAS | spacing, clip_sample=False, set_alpha_to_one=False)


@torch.no_grad()
def denoise(
    unet: UNet3D,
    latents: Tensor,
    conditioning: Tensor,
    audio: Tensor,
    options: SamplingOptions,
) -> Iterator[Tensor]:
    """Denoise one chunk, yielding the latents after every step.

    latents : [1, 4, F, h, w] noise; conditioning : [1, 9, F, h, w]; audio : [F, S, D] of the conditional half.
    """
    schedule = scheduler(options.sampler)
    schedule.set_timesteps(options.steps)
    batch, interval = options.guidance_batch, options.cache_interval
    tokens = audio[None] if batch == 1 else torch.stack([torch.zeros_like(audio), audio])
    deep: Tensor | None = None
    for index, timestep in enumerate(schedule.timesteps):
        sample = torch.cat([latents, conditioning], dim=1).expand(batch, -1, -1, -1, -1)
        time = timestep.reshape(1).to(device=latents.device, dtype=torch.float32)
        if deep is None or interval is None or index % interval == 0:
            noise, deep = unet(sample, time, tokens)
        else:
            noise = unet.forward_shallow(sample, time, tokens, deep)
        if batch == 2:
            unconditional, conditional = noise.chunk(2)
            noise = unconditional + options.guidance * (conditional - unconditional)
        latents = schedule.step(noise, timestep, latents).prev_sample
        yield latents


@torch.no_grad()
def encode(vae: Vae, pixels: Tensor, noise: Tensor) -> Tensor:
    """Sampled, scaled latents [n, 4, h, w] of pixels [n, 3, H, W] in -1..1 with noise [n, 4, h, w]."""
    posterior = vae.encode(pixels)
    return (posterior.mean + posterior.deviation * noise) * LATENT_SCALE


@torch.no_grad()
def decode(vae: Vae, latents: Tensor) -> Tensor:
    """Pixels [n, 3, H, W] around -1..1 of scaled latents [n, 4, h, w]."""
    return vae.decode(latents / LATENT_SCALE)


def paste(decoded: Tensor, pixels: Tensor, mask: Tensor) -> Tensor:
    """The decoded face inside the mask (0), the frame's own pixels where it keeps (1)."""
    return decoded * (1 - mask) + pixels * mask


def log_mel(samples: Tensor) -> Tensor:
    """Whisper's log-mel of a whole file, by torchaudio's conventions: float32 [80, samples // 160].

    samples : float32 [n] in -1..1, 16 kHz. The filters are transformers' own.
    """
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    spectrum = torch.stft(samples, 400, 160, window=torch.hann_window(400), return_complex=True)[:, :-1].abs() ** 2
    mel = torch.from_numpy(filters).T.to(torch.float32) @ spectrum
    log = mel.clamp(min=1e-10).log10()
    return (torch.maximum(log, log.max() - 8) + 4) / 4


@torch.no_grad()
def audio_states(encoder: AudioEncoder, samples: Tensor) -> Tensor:
    """Encoder states float32 [rows, states, D] of a whole sound, 50 rows a second; samples as in `log_mel`.

    Every 30 s are encoded by themselves, on the encoder's device, their states cut to the length of the sound and
    joined.
    """
    device = next(encoder.parameters()).device
    mel = log_mel(samples)
    states = []
    for start in range(0, mel.shape[1], 3000):
        segment = mel[:, start : start + 3000]
        padded = torch.nn.functional.pad(segment, (0, 3000 - segment.shape[1]))
        states.append(encoder(padded[None].to(device))[0, : segment.shape[1] // 2].cpu())
    return torch.cat(states)


@torch.no_grad()
def audio_tokens(encoder: AudioEncoder, samples: Tensor, frames: range, window: tuple[int, int]) -> Tensor:
    """Tokens float32 [len(frames), S, D] of video frames at 25 a second, in the original's order of operations.

    Frame i takes rows 2 (i - before) to 2 (i + after) + 1, each clamped to the file.
    """
    rows = audio_states(encoder, samples)
    before, after = window
    chosen = [torch.arange(2 * (i - before), 2 * (i + after + 1)).clamp(0, len(rows) - 1) for i in frames]
    return torch.stack([rows[index].flatten(0, 1) for index in chosen])
