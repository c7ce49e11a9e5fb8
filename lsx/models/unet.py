"""LatentSync's U-Net in PyTorch: the reference, and the module that is exported.

Hidden states travel as [(batch frames), channels, height, width], so every convolution is a plain 2-D one; only
the resnet blocks' norms and the motion modules look across frames. Parameter names are the released checkpoint's.
Source: LatentSync, arXiv 2412.09262; DeepCache, arXiv 2312.00858 for `forward_shallow`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lsx.models.attention import MotionModule, SpatialBlock, SpatialTransformer, checkpointed
from lsx.models.unet_config import UNetConfig

__all__ = ["UNet3D", "timestep_embedding"]


class ChunkNorm(nn.GroupNorm):
    """GroupNorm whose statistics run over all frames of a chunk, not over one frame; then SiLU.

    hidden : [(b frames), channels, h, w]. The original normalises the 5-D tensor; per frame would be another model.
    SiLU comes before the way back to 4-D, where TensorRT takes both for one kernel.
    """

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=1e-5)

    def forward(self, hidden: Tensor, frames: int = 1) -> Tensor:
        size = hidden.shape[1:]
        x = hidden.unflatten(0, (-1, frames)).transpose(1, 2)
        return F.silu(super().forward(x)).transpose(1, 2).reshape(-1, *size)


class ResnetBlock(nn.Module):
    """Norm and SiLU, convolution, time, norm and SiLU, convolution, plus the input. time : [1, time channels]."""

    def __init__(self, channels: int, out_channels: int, time_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = ChunkNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = ChunkNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        x = self.conv1(self.norm1(hidden, frames))
        x = x + self.time_emb_proj(F.silu(time))[:, :, None, None]
        x = self.conv2(self.norm2(x, frames))
        shortcut: Tensor = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        out: Tensor = shortcut + x
        return out


class _Resample(nn.Module):
    """One convolution: stride 2 downwards, nearest x2 in space before it upwards."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        if self.up:
            hidden = F.interpolate(hidden, scale_factor=2.0, mode="nearest")
        out: Tensor = self.conv(hidden)
        return out


class _Level(nn.Module):
    """The layers of one down or up block: resnet, spatial transformer, motion module, each time."""

    def __init__(self, config: UNetConfig, inputs: list[int], channels: int, attention: bool) -> None:
        super().__init__()
        time = 4 * config.block_out_channels[0]
        self.resnets = nn.ModuleList(ResnetBlock(n, channels, time, config.norm_groups) for n in inputs)
        if attention:
            self.attentions = nn.ModuleList(
                SpatialTransformer(channels, config.heads, config.norm_groups, config.cross_attention_dim)
                for _ in inputs
            )
        self.motion_modules = nn.ModuleList(
            MotionModule(
                channels,
                config.motion_heads,
                config.max_frames,
                config.motion_blocks,
                config.motion_attentions,
            )
            for _ in inputs
        )
        self.checkpointing, self.in_motion = False, True

    def layer(self, index: int, hidden: Tensor, time: Tensor, audio: Tensor, frames: int) -> Tensor:
        """One layer; its inner activations are computed again on the way back where gradients are checkpointed."""
        out: Tensor = checkpointed(self._layer, index, hidden, time, audio, frames, enabled=self.checkpointing)
        return out

    def _layer(self, index: int, hidden: Tensor, time: Tensor, audio: Tensor, frames: int) -> Tensor:
        hidden = self.resnets[index](hidden, time, frames)
        if hasattr(self, "attentions"):
            hidden = self.attentions[index](hidden, audio)
        if self.in_motion:
            hidden = self.motion_modules[index](hidden, frames)
        return hidden


class _DownBlock(_Level):
    def __init__(self, config: UNetConfig, channels: int, out_channels: int, attention: bool, last: bool) -> None:
        inputs = [channels] + [out_channels] * (config.layers_per_block - 1)
        super().__init__(config, inputs, out_channels, attention)
        if not last:
            self.downsamplers = nn.ModuleList([_Resample(out_channels, up=False)])

    def forward(self, hidden: Tensor, time: Tensor, audio: Tensor, frames: int, skips: list[Tensor]) -> Tensor:
        for index in range(len(self.resnets)):
            hidden = self.layer(index, hidden, time, audio, frames)
            skips.append(hidden)
        if hasattr(self, "downsamplers"):
            hidden = self.downsamplers[0](hidden)
            skips.append(hidden)
        return hidden


class _UpBlock(_Level):
    def __init__(self, config: UNetConfig, inputs: list[int], channels: int, attention: bool, last: bool) -> None:
        super().__init__(config, inputs, channels, attention)
        if not last:
            self.upsamplers = nn.ModuleList([_Resample(channels, up=True)])

    def forward(
        self, hidden: Tensor, time: Tensor, audio: Tensor, frames: int, skips: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the block's output and the input of its last layer, before the skip is joined (DeepCache's)."""
        before_last = hidden
        for index in range(len(self.resnets)):
            before_last = hidden
            hidden = self.layer(index, torch.cat([hidden, skips.pop()], dim=1), time, audio, frames)
        if hasattr(self, "upsamplers"):
            hidden = self.upsamplers[0](hidden)
        return hidden, before_last


class _MidBlock(nn.Module):
    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        time = 4 * config.block_out_channels[0]
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, time, config.norm_groups) for _ in range(2))
        self.attentions = nn.ModuleList(
            [SpatialTransformer(channels, config.heads, config.norm_groups, config.cross_attention_dim)]
        )

    def forward(self, hidden: Tensor, time: Tensor, audio: Tensor, frames: int) -> Tensor:
        hidden = self.attentions[0](self.resnets[0](hidden, time, frames), audio)
        out: Tensor = self.resnets[1](hidden, time, frames)
        return out


def timestep_embedding(timestep: Tensor, channels: int) -> Tensor:
    """Sinusoidal embedding of `timestep` float32 [n]: float32 [n, channels], cosines first."""
    half = channels // 2
    rate = torch.exp(torch.arange(half, dtype=torch.float32, device=timestep.device) * (-math.log(10000.0) / half))
    angle = timestep.float()[:, None] * rate[None]
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


class _TimeEmbedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, 4 * channels)
        self.linear_2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, timestep: Tensor) -> Tensor:
        embedding = timestep_embedding(timestep, self.channels).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(embedding)))
        return out


class UNet3D(nn.Module):
    """The denoiser. All tensors in the module's dtype but `timestep` (float32).

    sample : [b, 13, F, h, w]; timestep : [1], or [b] in training; encoder_hidden_states : [b, F, S, D] or
    [(b F), S, D]; noise_pred : [b, 4, F, h, w]; deep_features : [b, F, C, h, w], the output of the last up block's
    second-last layer.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = _TimeEmbedding(channels[0])
        levels = len(channels)
        self.down_blocks = nn.ModuleList(
            _DownBlock(config, channels[max(i - 1, 0)], channels[i], config.attention_levels[i], last=i == levels - 1)
            for i in range(levels)
        )
        self.mid_block = _MidBlock(config, channels[-1])
        self.up_blocks = nn.ModuleList(
            _UpBlock(
                config,
                _up_inputs(config, i),
                channels[levels - 1 - i],
                config.attention_levels[levels - 1 - i],
                last=i == levels - 1,
            )
            for i in range(levels)
        )
        self.conv_norm_out = ChunkNorm(config.norm_groups, channels[0])
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)
        self.checkpointing = False
        self._half_frames = 0

    def share_halves(self, frames: int) -> None:
        """Compute once what both halves of guidance have in common, from now on. frames : of a chunk.

        `sample` must then be the same in both halves and the first half's sound zero, as `StepGraph` and the loop make
        them. Up to the first attention to the audio one half is computed for both, and that attention for the last one.
        """
        self._half_frames = frames
        for module in self.modules():
            if isinstance(module, SpatialBlock):
                module.half_frames = frames

    def checkpoint_gradients(self) -> None:
        """Train in less memory: keep only what stands between layers for the way back, and compute the rest again."""
        for block in (self, *self.down_blocks, *self.up_blocks):
            block.checkpointing = True

    def leave_out_motion(self) -> None:
        """Compute without the motion modules, as the first stage of training does, where they are not there yet.

        They are set to change nothing, so that the weights give the same with them.
        """
        for block in (*self.down_blocks, *self.up_blocks):
            block.in_motion = False
        self.still_motion()

    def still_motion(self) -> None:
        """Have the motion modules change nothing, as new ones do: their output projections are zero."""
        for name, parameter in self.named_parameters():
            if "motion_modules." in name and ".proj_out." in name:
                parameter.data.zero_()

    def _prepare(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        time = self.time_embedding(timestep).to(sample.dtype)
        if len(time) > 1:  # in training every clip has a time step of its own
            time = time.repeat_interleave(sample.shape[2], 0)
        audio = encoder_hidden_states.flatten(0, -3)
        if self._half_frames:
            sample = sample[:1]
        return self.conv_in(sample.transpose(1, 2).flatten(0, 1)), time, audio

    def _of_each(self, hidden: Tensor, audio: Tensor) -> Tensor:
        """What is one for both halves of guidance, for each: added to a zero of each, for an Expand needs a length."""
        if not self._half_frames:
            return hidden
        zero = audio[:, :1, :1, None].unflatten(0, (-1, self._half_frames))[:, :1] * 0
        of_each: Tensor = (hidden[None] + zero).flatten(0, 1)
        return of_each

    def _finish(self, hidden: Tensor, frames: int) -> Tensor:
        hidden = self.conv_out(self.conv_norm_out(hidden, frames))
        out: Tensor = hidden.unflatten(0, (-1, frames)).transpose(1, 2)
        return out

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """The whole U-Net: (noise_pred, deep_features)."""
        frames = sample.shape[2]
        hidden, time, audio = self._prepare(sample, timestep, encoder_hidden_states)
        skips = [self._of_each(hidden, audio)]
        if not self.config.attention_levels[0]:  # nothing listens before the first motion module
            hidden = skips[0]
        for block in self.down_blocks:
            hidden = block(hidden, time, audio, frames, skips)
        hidden = checkpointed(self.mid_block, hidden, time, audio, frames, enabled=self.checkpointing)
        deep = hidden
        for block in self.up_blocks:
            hidden, deep = block(hidden, time, audio, frames, skips)
        return self._finish(hidden, frames), deep.unflatten(0, (-1, frames))

    def forward_shallow(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, deep_features: Tensor
    ) -> Tensor:
        """DeepCache's branch 0: only the last layer of the last up block, on cached features. noise_pred."""
        frames = sample.shape[2]
        hidden, time, audio = self._prepare(sample, timestep, encoder_hidden_states)
        last: Any = self.up_blocks[-1]
        hidden = torch.cat([deep_features.flatten(0, 1), self._of_each(hidden, audio)], dim=1)
        return self._finish(last.layer(len(last.resnets) - 1, hidden, time, audio, frames), frames)


def _up_inputs(config: UNetConfig, index: int) -> list[int]:
    """Input channels of each layer of up block `index`: what comes from below, plus the skip."""
    channels = config.block_out_channels
    level = len(channels) - 1 - index
    skips = [channels[0]]
    for i, n in enumerate(channels):
        skips += [n] * config.layers_per_block + ([n] if i < len(channels) - 1 else [])
    per_block = config.layers_per_block + 1
    mine = skips[::-1][index * per_block : (index + 1) * per_block]
    below = channels[min(level + 1, len(channels) - 1)]
    return [(below if i == 0 else channels[level]) + skip for i, skip in enumerate(mine)]
