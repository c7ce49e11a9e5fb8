"""The Whisper encoder, from OpenAI's checkpoint, giving the states before the final LayerNorm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

__all__ = ["AudioEncoder", "openai_to_transformers", "sinusoids"]

_RENAMED = (
    (r"^blocks\.", "layers."),
    (r"\.attn\.query\.", ".self_attn.q_proj."),
    (r"\.attn\.key\.", ".self_attn.k_proj."),
    (r"\.attn\.value\.", ".self_attn.v_proj."),
    (r"\.attn\.out\.", ".self_attn.out_proj."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"^ln_post\.", "layer_norm."),
    (r"^positional_embedding$", "embed_positions.weight"),
)


def openai_to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The `encoder.*` tensors of an OpenAI Whisper checkpoint under transformers' names, others dropped."""
    renamed = {}
    for key, value in state.items():
        if not key.startswith("encoder."):
            continue
        name = key.removeprefix("encoder.")
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions, float32 [length, channels]: sines, then cosines, the angles multiplied in float32."""
    half = channels // 2
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    rate = torch.exp(-step * torch.arange(half, dtype=torch.float32))
    angle = torch.arange(length, dtype=torch.float32)[:, None] * rate[None]
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


class AudioEncoder(nn.Module):
    """Whisper's encoder. mel : [n, 80, 3000]; result : [n, 1500, layers + 1, D], layer states innermost but one.

    The states are the convolutions' output plus positions, then each block's output; the final LayerNorm is unused.
    """

    def __init__(self, dims: Mapping[str, Any]) -> None:
        super().__init__()
        config = WhisperConfig(
            num_mel_bins=int(dims["n_mels"]),
            max_source_positions=int(dims["n_audio_ctx"]),
            d_model=int(dims["n_audio_state"]),
            encoder_attention_heads=int(dims["n_audio_head"]),
            encoder_layers=int(dims["n_audio_layer"]),
            encoder_ffn_dim=4 * int(dims["n_audio_state"]),
            attn_implementation="sdpa",
        )
        self.encoder = WhisperEncoder(config)

    def forward(self, mel: Tensor) -> Tensor:
        encoder = self.encoder
        x = F.gelu(encoder.conv1(mel.to(encoder.conv1.weight.dtype)))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        x = x + encoder.embed_positions.weight
        states = [x]
        for layer in encoder.layers:
            x = layer(x, None)
            states.append(x)
        return torch.stack(states, dim=2)
