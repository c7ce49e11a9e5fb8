"""Attention blocks of the U-Net: spatial transformer and motion module.

Both take and give hidden states as [(batch frames), channels, height, width]; module names are the released
checkpoint's. Source: LatentSync, arXiv 2412.09262; AnimateDiff, arXiv 2307.04725 for the motion module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "Attention",
    "FeedForward",
    "MotionModule",
    "SpatialBlock",
    "SpatialTransformer",
    "TemporalBlock",
    "TemporalTransformer",
    "checkpointed",
    "frame_positions",
]


def checkpointed(block: Callable[..., Any], *inputs: Any, enabled: bool) -> Any:
    """What `block` makes of `inputs`; where `enabled` and gradients are wanted, only its inputs are kept for the way
    back, and the rest is computed again then."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


class Attention(nn.Module):
    """Multi-head attention; q, k and v have a bias in SyncNet alone.

    hidden : [n, tokens, channels]; context : [n, context tokens, context channels] (default: hidden).
    """

    def __init__(self, channels: int, heads: int, context_channels: int | None = None, *, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        context_channels = context_channels or channels
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_channels, channels, bias=bias)
        self.to_v = nn.Linear(context_channels, channels, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        context = hidden if context is None else context
        q, k, v = self.to_q(hidden), self.to_k(context), self.to_v(context)
        if torch.compiler.is_exporting():
            out = _onnx_attention(q, k, v, self.heads)
        else:
            out = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v))
            out = out.transpose(1, 2).flatten(2)
        projected: Tensor = self.to_out[0](out)
        return projected


def _onnx_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """ONNX's Attention on [n, tokens, channels]: one operator that splits the heads itself, see docs/decisions.md."""
    out: Tensor = torch.onnx.ops.symbolic(
        "Attention",
        (q, k, v),
        attrs={"q_num_heads": heads, "kv_num_heads": heads},
        dtype=q.dtype,
        shape=q.shape,
        version=23,
    )
    return out


class _Gated(nn.Module):
    """The first half of a GEGLU feed-forward: linear, then value * gelu(gate)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return torch.mul(value, F.gelu(gate))


class FeedForward(nn.Module):
    """GEGLU feed-forward, inner width 4 x channels. Shapes: [..., channels] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The identity stands where the original has its dropout, so that the key names match.
        self.net = nn.Sequential(_Gated(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class SpatialBlock(nn.Module):
    """Self-attention, attention to the audio, feed-forward, each after a norm and added to its input."""

    half_frames = 0
    """Frames of one half of guidance, where what both halves have in common is computed once; else 0."""

    def __init__(self, channels: int, heads: int, context_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, hidden: Tensor, audio: Tensor) -> Tensor:
        hidden = hidden + self.attn1(self.norm1(hidden))
        hidden = self._hear_once(hidden, audio) if self.half_frames else hidden + self.attn2(self.norm2(hidden), audio)
        fed: Tensor = self.ff(self.norm3(hidden))
        return hidden + fed

    def _hear_once(self, hidden: Tensor, audio: Tensor) -> Tensor:
        """The same for the halves of guidance, of which `hidden` may still be one for both.

        Only the last half attends: without sound keys and values are zero, and what is left is the output's bias.
        """
        silent = audio.abs().amax((1, 2), keepdim=True) == 0  # a NaN is not silent: it must be seen
        heard = self.attn2(self.norm2(hidden[-self.half_frames :]), audio[-self.half_frames :])
        bias: Any = self.attn2.to_out[0].bias
        answer = torch.where(silent.unflatten(0, (-1, self.half_frames)), bias, heard[None])
        joined: Tensor = (hidden.unflatten(0, (-1, self.half_frames)) + answer).flatten(0, 1)
        return joined


class SpatialTransformer(nn.Module):
    """Attention over the pixels of each frame, then to that frame's audio tokens.

    hidden : [(b f), channels, h, w]; audio : [(b f), tokens, context channels].
    """

    def __init__(self, channels: int, heads: int, groups: int, context_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, heads, context_channels)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden: Tensor, audio: Tensor) -> Tensor:
        size = hidden.shape[-2:]
        tokens = self.proj_in(self.norm(hidden)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, audio)
        out: Tensor = self.proj_out(tokens.transpose(1, 2).unflatten(2, size))
        if len(out) == len(hidden):
            return out + hidden
        both: Tensor = out.unflatten(0, (-1, len(hidden))) + hidden  # one half came in for both, see `SpatialBlock`
        return both.flatten(0, 1)


def frame_positions(length: int, channels: int) -> Tensor:
    """Sinusoidal frame positions, float32 [1, length, channels]: sines on even channels, cosines on odd ones."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
    table = torch.zeros(1, length, channels)
    table[0, :, 0::2] = torch.sin(position * rate)
    table[0, :, 1::2] = torch.cos(position * rate)
    return table


class _FramePositions(nn.Module):
    def __init__(self, channels: int, max_frames: int) -> None:
        super().__init__()
        self.pe: Tensor
        table = torch.empty(1, max_frames, channels)  # on the meta device, where each step of the table takes long
        self.register_buffer("pe", table if table.is_meta else frame_positions(max_frames, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


class _TemporalAttention(Attention):
    """Self-attention over frames; the positions are added after the norm. [(b pixels), frames, channels]."""

    def __init__(self, channels: int, heads: int, max_frames: int) -> None:
        super().__init__(channels, heads)
        self.pos_encoder = _FramePositions(channels, max_frames)

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(self.pos_encoder(hidden), context)


class TemporalBlock(nn.Module):
    """Attentions over the frames, then a feed-forward, each after a norm and added to its input."""

    def __init__(self, channels: int, heads: int, max_frames: int, attentions: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            _TemporalAttention(channels, heads, max_frames) for _ in range(attentions)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(attentions))
        self.ff = FeedForward(channels)
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, hidden: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            hidden = hidden + attention(norm(hidden))
        fed: Tensor = self.ff(self.ff_norm(hidden))
        return hidden + fed


class TemporalTransformer(nn.Module):
    """Norm, linear, temporal blocks, linear, plus the input."""

    def __init__(self, channels: int, heads: int, max_frames: int, blocks: int, attentions: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)  # 32 whatever the U-Net's own group count
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(channels, heads, max_frames, attentions) for _ in range(blocks)
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden: Tensor, frames: int) -> Tensor:
        channels, height, width = hidden.shape[1:]
        # One transpose in and one out: everything in between acts on [(b pixels), frames, channels].
        x = self.norm(hidden).flatten(2).unflatten(0, (-1, frames)).permute(0, 3, 1, 2)
        x = self.proj_in(x.reshape(-1, frames, channels))
        for block in self.transformer_blocks:
            x = block(x)
        x = self.proj_out(x).unflatten(0, (-1, height * width)).permute(0, 2, 3, 1)
        out: Tensor = x.reshape(-1, channels, height, width) + hidden
        return out


class MotionModule(nn.Module):
    """Attention over the frames of the chunk at each pixel. hidden : [(b frames), channels, h, w]."""

    def __init__(self, channels: int, heads: int, max_frames: int = 24, blocks: int = 1, attentions: int = 2) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, heads, max_frames, blocks, attentions)

    def forward(self, hidden: Tensor, frames: int) -> Tensor:
        out: Tensor = self.temporal_transformer(hidden, frames)
        return out
