"""The modules that are exported, one a graph, each with exactly the I/O of the graph's contract.

Pixels, sampling, guidance, the scheduler step and pasting are computed in float32 here whatever the precision.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lsx.models.reference import LATENT_SCALE
from lsx.models.stable_syncnet import StableSyncNet, lower_half
from lsx.models.unet import UNet3D
from lsx.models.whisper import AudioEncoder

__all__ = [
    "SHARED_HALVES",
    "AudioEncoderGraph",
    "GraphModule",
    "GuidedGraph",
    "StepGraph",
    "SyncLipsGraph",
    "SyncSoundGraph",
    "UNetGraph",
    "UNetShallowGraph",
    "VaeDecoderGraph",
    "VaeEncoderGraph",
]


SHARED_HALVES = "lsx.shared_halves"
"""Key of a graph's metadata where it computes once what both halves of guidance have in common."""


def _to_pixels(faces: Tensor) -> Tensor:
    """uint8 [F, H, W, 3] to float32 [F, 3, H, W] in -1..1. TensorRT wants the Cast first, the Transpose after it."""
    return faces.to(torch.float32).permute(0, 3, 1, 2) * (2 / 255) - 1


class GraphModule(nn.Module):
    """A module that is exported."""

    def checkpoint_name(self, path: str) -> str:
        """The checkpoint's name of the submodule at `path`: by it layers are known in every graph."""
        return path


class GuidedGraph(GraphModule):
    """A graph of the U-Net, whose batch is guidance's two halves, or any other.

    With guidance b is 2: the half without sound, whose encoder_hidden_states are zero, then the one with it; `sample`
    is the same in both. After `share_halves` it takes no other batch of two.
    """

    unet: UNet3D

    def share_halves(self, frames: int) -> None:
        """Compute once what both halves of guidance have in common. frames : of a chunk."""
        self.unet.share_halves(frames)


class UNetGraph(GuidedGraph):
    """`unet`: (noise_pred, deep_features) of (sample, timestep, encoder_hidden_states)."""

    def __init__(self, unet: UNet3D) -> None:
        super().__init__()
        self.unet = unet

    def checkpoint_name(self, path: str) -> str:
        return path.removeprefix("unet.")

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        noise, deep = self.unet(sample, timestep, encoder_hidden_states)
        return noise, deep


class UNetShallowGraph(GuidedGraph):
    """`unet_shallow`: noise_pred of (sample, timestep, encoder_hidden_states, deep_features)."""

    def __init__(self, unet: UNet3D) -> None:
        """Takes `unet` over, and drops from it every layer that the shallow branch does not run."""
        super().__init__()
        last: Any = unet.up_blocks[-1]
        self._block, self._layer = len(unet.up_blocks) - 1, len(last.resnets) - 1
        for layers in ("resnets", "attentions", "motion_modules"):
            if hasattr(last, layers):
                setattr(last, layers, getattr(last, layers)[-1:])
        unet.up_blocks = nn.ModuleList([last])
        unet.down_blocks = nn.ModuleList()
        del unet.mid_block
        self.unet = unet

    def checkpoint_name(self, path: str) -> str:
        name = path.removeprefix("unet.")
        return re.sub(r"^up_blocks\.0\.(\w+)\.0\b", rf"up_blocks.{self._block}.\1.{self._layer}", name)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, deep_features: Tensor) -> Tensor:
        return self.unet.forward_shallow(sample, timestep, encoder_hidden_states, deep_features)


class StepGraph(GraphModule):
    """`step`: guidance, one linear scheduler step, what is kept of other latents, and the next forward's input.

    noise_pred [b, 4, F, h, w]; latents, previous float32 [1, 4, F, h, w]; conditioning [1, 9, F, h, w];
    coefficients float32 [5]: latents' = c0 latents + c1 noise + c2 previous, previous' = c3 latents + c4 noise;
    guidance float32 [1]. Without guidance b is 1, and uncond + g (cond - uncond) is the one prediction itself.
    kept float32 [1, 5, F, h, w]: other latents, and in the last channel their share in latents', 0 for none; left out
    for bundles of lsx 0.2, whose `step` takes none.
    """

    def forward(
        self,
        noise_pred: Tensor,
        latents: Tensor,
        previous: Tensor,
        conditioning: Tensor,
        coefficients: Tensor,
        guidance: Tensor,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        noise = noise_pred.to(torch.float32)
        unconditional, conditional = noise[:1], noise[-1:]
        guided = unconditional + guidance * (conditional - unconditional)
        c = coefficients
        moved = c[0:1] * latents + c[1:2] * guided + c[2:3] * previous
        if kept is not None:
            moved = moved + kept[:, 4:] * (kept[:, :4] - moved)
        carried = c[3:4] * latents + c[4:5] * guided
        sample = torch.cat([moved.to(conditioning.dtype), conditioning], dim=1)
        return moved, carried, sample.expand(noise_pred.shape[0], -1, -1, -1, -1)


class VaeEncoderGraph(GraphModule):
    """`vae_encoder`: (conditioning, moments) of faces uint8 [F, H, W, 3] and noise float32 [2, F, 4, h, w].

    conditioning : [1, 9, F, h, w]. moments : float32 [F, 2, 2, 4, h, w], the masked and the reference face, mean and
    deviation of each, which do not depend on the noise; who keeps them need not encode again.
    """

    def __init__(self, vae: Any, mask: Tensor) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv
        self.mask: Tensor
        self.register_buffer("mask", mask[None, None], persistent=False)

    def forward(self, faces: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.quant_conv.weight.dtype
        pixels = _to_pixels(faces)
        mask = self.mask.to(torch.float32)
        # Masked and reference frames side by side, so that the frames stay the leading axis throughout.
        both = torch.stack([pixels * mask, pixels], dim=1).flatten(0, 1).to(dtype)
        mean, log_variance = self.quant_conv(self.encoder(both)).to(torch.float32).chunk(2, dim=1)
        deviation = torch.exp(0.5 * torch.clamp(log_variance, -30.0, 20.0))
        latents = (mean + deviation * noise.transpose(0, 1).flatten(0, 1)) * LATENT_SCALE
        pair = latents.unflatten(0, (-1, 2))
        masked, reference = pair[:, 0], pair[:, 1]
        small = mask[:, :, ::8, ::8] + 0 * masked[:, :1]  # one a frame, however many there are
        conditioning = torch.cat([small, masked, reference], dim=1).transpose(0, 1)[None].to(dtype)
        return conditioning, torch.stack([mean, deviation], dim=1).unflatten(0, (-1, 2))


class VaeDecoderGraph(GraphModule):
    """`vae_decoder`: (faces_out, pixels, nonfinite) of latents float32 [1, 4, F, h, w] and faces uint8 [F, H, W, 3].

    Inside the mask the decoded face, elsewhere the frame's own pixels. faces_out : uint8 [F, H, W, 3]. pixels : the
    same before rounding and clipping, [F, H, W, 3] in levels, float16 (float32 in an fp32 bundle). The original
    resizes and warps these: what overshoots 0..255 decides its neighbours' values, and is lost in uint8. nonfinite :
    float32 [F], how many of a frame's decoded values are NaN or infinite. uint8 hides them.
    """

    def __init__(self, vae: Any, mask: Tensor) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.post_quant_conv = vae.post_quant_conv
        self.mask: Tensor
        self.register_buffer("mask", mask[None, None], persistent=False)

    def forward(self, latents: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = self.post_quant_conv.weight.dtype
        mask = self.mask.to(torch.float32)
        z = (latents[0].transpose(0, 1) * (1 / LATENT_SCALE)).to(dtype)
        decoded = self.decoder(self.post_quant_conv(z)).to(torch.float32)
        pasted = decoded * (torch.ones_like(mask) - mask) + _to_pixels(faces) * mask
        # Float to uint8 truncates and is undefined outside [0, 256): round and clip first; the Cast comes last.
        pixels = ((pasted + 1) * 127.5).permute(0, 2, 3, 1)
        faces_out = torch.clamp(torch.round(pixels), 0, 255).to(torch.uint8)
        bad = torch.logical_or(torch.isnan(decoded), torch.isinf(decoded))
        nonfinite = bad.to(torch.float32).sum(dim=(1, 2, 3))
        return faces_out, pixels.to(torch.float32 if dtype == torch.float32 else torch.float16), nonfinite


class AudioEncoderGraph(GraphModule):
    """`audio_encoder`: hidden_states float32 [n, 1500, layers + 1, D] of mel float32 [n, 80, 3000]."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Tensor) -> Tensor:
        states: Tensor = self.encoder(mel)
        return states.to(torch.float32)


class SyncLipsGraph(GraphModule):
    """`syncnet_lips`: a unit vector float32 [1, D] of 16 aligned faces uint8 [16, R, R, 3], R StableSyncNet's own."""

    def __init__(self, network: StableSyncNet) -> None:
        super().__init__()
        self.encoder, self.resolution = network.visual_encoder, network.config.resolution

    def forward(self, faces: Tensor) -> Tensor:
        return F.normalize(self.encoder(lower_half(_to_pixels(faces), self.resolution)))


class SyncSoundGraph(GraphModule):
    """`syncnet_sound`: a unit vector float32 [1, D] of their sound, mel float32 [1, 1, 80, 52]."""

    def __init__(self, network: StableSyncNet) -> None:
        super().__init__()
        self.encoder = network.audio_encoder

    def forward(self, mel: Tensor) -> Tensor:
        return F.normalize(self.encoder(mel))
