"""The reference's outcome of a chunk, in plain PyTorch and the original's order, and what every graph should give.

Nothing here comes from the runtime: sound, schedule, guidance and loop are computed a second time, by other means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_runner import NoiseSource
from lsx.models import reference
from lsx.models.checkpoint import Checkpoint
from lsx.models.unet import UNet3D
from lsx.verify.inputs import ChunkInput

__all__ = ["Expected", "GraphCase", "Reference"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GraphCase:
    """One forward of one graph inside the reference's loop: what goes in, and what comes out."""

    graph: str
    feed: dict[str, Array]
    outputs: dict[str, Array]
    step: int = -1
    """Denoising step, -1 outside the loop."""


@dataclass(slots=True, kw_only=True, eq=False)
class Expected:
    """The reference's outcome of one chunk."""

    tokens: Array
    """float32 [F, S, D]."""
    latents: list[Array]
    """float32 [1, 4, F, h, w] before the first step, and after each."""
    pixels: Array
    """float32 [F, H, W, 3] in levels, the face pasted inside the mask, neither rounded nor clipped."""
    cases: list[GraphCase] = field(default_factory=list)
    """Cases of the first chunk only."""
    noise: list[Array] = field(default_factory=list)
    """noise_pred of every step, for the first chunk only."""


class _Watched:
    """The U-Net, what it is given and what it makes being kept."""

    def __init__(self, unet: UNet3D) -> None:
        self._unet = unet
        self.forwards: list[tuple[str, dict[str, Tensor], dict[str, Tensor]]] = []
        self.keep = True

    def __call__(self, sample: Tensor, timestep: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        noise, deep = self._unet(sample, timestep, audio)
        if self.keep:
            feed = {"sample": sample, "timestep": timestep, "encoder_hidden_states": audio}
            self.forwards.append(("unet", feed, {"noise_pred": noise, "deep_features": deep}))
        return noise, deep

    def forward_shallow(self, sample: Tensor, timestep: Tensor, audio: Tensor, deep: Tensor) -> Tensor:
        noise = self._unet.forward_shallow(sample, timestep, audio, deep)
        if self.keep:
            feed = {"sample": sample, "timestep": timestep, "encoder_hidden_states": audio, "deep_features": deep}
            self.forwards.append(("unet_shallow", feed, {"noise_pred": noise}))
        return noise


class Reference:
    """The original's computation on one checkpoint, in float32; on the GPU where there is one."""

    def __init__(self, checkpoint: Checkpoint, options: SamplingOptions, noise: NoiseSource) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.options, self._noise = checkpoint.spec, options, noise
        unet = checkpoint.unet().eval().requires_grad_(False).to(self.device)
        self._unet: _Watched | None = _Watched(unet)
        self._vae = checkpoint.vae().to(self.device)
        self._encoder = checkpoint.audio_encoder()
        self._mask = torch.from_numpy(checkpoint.mask()).to(self.device)

    def mel(self, samples: NDArray[np.int16] | NDArray[np.float32]) -> Array:
        """The first 30 s, as the audio encoder takes them: float32 [1, 80, 3000]."""
        mel = reference.log_mel(_wave(samples))[:, :3000]
        return np.asarray(torch.nn.functional.pad(mel, (0, 3000 - mel.shape[1]))[None].numpy())

    def audio_case(self, samples: NDArray[np.int16] | NDArray[np.float32]) -> GraphCase:
        """The audio encoder's forward on the first 30 s."""
        mel = self.mel(samples)
        with torch.inference_mode():
            states = self._encoder(torch.from_numpy(mel))
        return GraphCase(graph="audio_encoder", feed={"mel": mel}, outputs={"hidden_states": states.numpy()})

    def chunk(self, chunk: ChunkInput, samples: NDArray[np.int16] | NDArray[np.float32], *, cases: bool) -> Expected:
        """One chunk; `cases` keeps every graph's inputs and outputs."""
        model, options = self.model, self.options
        frames = range(chunk.first, chunk.first + model.frames)
        tokens = reference.audio_tokens(self._encoder, _wave(samples), frames, model.audio_window)
        pixels = torch.from_numpy(chunk.faces).to(self.device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        size = (model.frames, 4, model.latent, model.latent)
        draws = [self._draw(f"{name}.{chunk.number}", size) for name in ("masked", "reference")]
        conditioning = self._conditioning(pixels, draws)
        start = self._draw("latents", (1, 4, 1, model.latent, model.latent)).repeat(1, 1, model.frames, 1, 1)
        unet = self._unet
        if unet is None:
            raise RuntimeError("the U-Net was let go")
        unet.forwards.clear()
        unet.keep = cases
        steps = list(
            reference.denoise(
                cast("UNet3D", unet),
                start,
                conditioning,
                tokens.to(self.device),
                options,
            )
        )
        decoded = torch.cat([reference.decode(self._vae, frame[None]) for frame in steps[-1][0].transpose(0, 1)])
        pasted = reference.paste(decoded, pixels, self._mask)
        out = Expected(
            tokens=tokens.numpy(),
            latents=[_array(t) for t in (start, *steps)],
            pixels=_array(((pasted + 1) * 127.5).permute(0, 2, 3, 1)),
        )
        if cases:
            out.noise = [_array(outputs["noise_pred"]) for _, _, outputs in unet.forwards]
            out.cases = self._cases(unet, chunk, draws, conditioning, out)
            unet.forwards.clear()
        return out

    def _conditioning(self, pixels: Tensor, draws: list[Tensor]) -> Tensor:
        """[1, 9, F, h, w], frame by frame: the VAE treats them one by one."""
        rows = []
        for index in range(len(pixels)):
            frame = pixels[index : index + 1]
            pair = [
                reference.encode(self._vae, picture, noise[index : index + 1])
                for picture, noise in zip((frame * self._mask, frame), draws, strict=True)
            ]
            rows.append(torch.cat([self._mask[None, None, ::8, ::8], *pair], dim=1))
        return torch.cat(rows).transpose(0, 1)[None]

    def forget_unet(self) -> None:
        """Free the largest network; `clean_estimate` does without it."""
        self._unet = None

    def _cases(
        self, unet: _Watched, chunk: ChunkInput, draws: list[Tensor], conditioning: Tensor, out: Expected
    ) -> list[GraphCase]:
        size = self.model.vae_frames
        some = slice(0, size)
        cases = [
            GraphCase(
                graph="vae_encoder",
                feed={"faces": chunk.faces[some], "noise": np.stack([_array(d) for d in draws])[:, some]},
                outputs={"conditioning": _array(conditioning)[:, :, some]},
            )
        ]
        for step, (graph, feed, outputs) in enumerate(unet.forwards):
            cases.append(
                GraphCase(
                    graph=graph,
                    feed={n: _array(t) for n, t in feed.items()},
                    outputs={n: _array(t) for n, t in outputs.items()},
                    step=step,
                )
            )
        cases.append(
            GraphCase(
                graph="vae_decoder",
                feed={"latents": out.latents[-1][:, :, some], "faces": chunk.faces[some]},
                outputs={"pixels": out.pixels[some]},
            )
        )
        return cases

    def clean_estimate(self, latents: Array, noise: Array, step: int, faces: NDArray[np.uint8]) -> Array:
        """Faces float32 [F, H, W, 3] in levels, decoded from what is left when a step's noise is taken away at once.

        latents : before the step; noise : noise_pred [b, 4, F, h, w], guided here.
        """
        schedule = reference.scheduler(self.options.sampler)
        schedule.set_timesteps(self.options.steps)
        alpha = float(schedule.alphas_cumprod[int(schedule.timesteps[step])])
        guided = noise[:1] + self.options.guidance * (noise[-1:] - noise[:1])
        clean = torch.from_numpy((latents - (1 - alpha) ** 0.5 * guided) / alpha**0.5).to(self.device)
        decoded = torch.cat([reference.decode(self._vae, frame[None]) for frame in clean[0].transpose(0, 1)])
        pixels = torch.from_numpy(faces).to(self.device).permute(0, 3, 1, 2).float() / 255 * 2 - 1
        pasted = reference.paste(decoded, pixels, self._mask)
        return _array(((pasted + 1) * 127.5).permute(0, 2, 3, 1))

    def _draw(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(self._noise(name, shape)).to(self.device)


def _wave(samples: NDArray[np.int16] | NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(samples.astype(np.float32) / 32768)


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy())
