"""The Whisper encoder under OpenAI's names, giving the states before the final LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["AudioEncoder", "encoder_state", "sinusoids"]


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The `encoder.*` tensors of an OpenAI Whisper checkpoint without that word, others dropped."""
    return {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions, float32 [length, channels]: sines, then cosines, the angles multiplied in float32."""
    half = channels // 2
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    rate = torch.exp(-step * torch.arange(half, dtype=torch.float32))
    angle = torch.arange(length, dtype=torch.float32)[:, None] * rate[None]
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


class _Attention(nn.Module):
    """Self-attention; queries are scaled before they meet the keys, which have no bias. [n, tokens, channels]."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self._heads, self._scale = heads, (channels // heads) ** -0.5
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels, bias=False)
        self.value, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for part in (self.query(x) * self._scale, self.key(x), self.value(x))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class _Block(nn.Module):
    """Attention and two layers, each after a norm and added to its input."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attn, self.attn_ln = _Attention(channels, heads), nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.mlp_ln = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x))
        out: Tensor = x + self.mlp(self.mlp_ln(x))
        return out


class AudioEncoder(nn.Module):
    """Whisper's encoder. mel : [n, 80, 3000]; result : [n, 1500, layers + 1, D], layer states innermost but one.

    The states are the convolutions' output plus positions, then each block's output; the final LayerNorm is unused.
    """

    def __init__(self, dims: Mapping[str, Any]) -> None:
        super().__init__()
        channels, length = int(dims["n_audio_state"]), int(dims["n_audio_ctx"])
        heads, layers = int(dims["n_audio_head"]), int(dims["n_audio_layer"])
        self.conv1 = nn.Conv1d(int(dims["n_mels"]), channels, 3, padding=1)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.positional_embedding: Tensor
        self.register_buffer("positional_embedding", sinusoids(length, channels))
        self.blocks = nn.ModuleList(_Block(channels, heads) for _ in range(layers))
        self.ln_post = nn.LayerNorm(channels)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv1(mel.to(self.conv1.weight.dtype)))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positional_embedding
        states = [x]
        for block in self.blocks:
            x = block(x)
            states.append(x)
        return torch.stack(states, dim=2)
