"""The Whisper encoder against transformers' own, with the same weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lsx.models.checkpoint import load_strict, read_tensors
from lsx.models.random_checkpoint import write_whisper
from lsx.models.whisper import AudioEncoder, encoder_state

NAMES = {
    "blocks.": "layers.",
    ".attn.query.": ".self_attn.q_proj.",
    ".attn.key.": ".self_attn.k_proj.",
    ".attn.value.": ".self_attn.v_proj.",
    ".attn.out.": ".self_attn.out_proj.",
    ".attn_ln.": ".self_attn_layer_norm.",
    ".mlp.0.": ".fc1.",
    ".mlp.2.": ".fc2.",
    ".mlp_ln.": ".final_layer_norm.",
    "ln_post.": "layer_norm.",
    "positional_embedding": "embed_positions.weight",
}


def theirs(state: dict[str, Tensor], layers: int) -> WhisperEncoder:
    """transformers' encoder of Whisper tiny's widths, with these weights."""
    renamed = {}
    for key, value in state.items():
        name = key
        for ours, name_there in NAMES.items():
            name = re.sub(re.escape(ours), name_there, name)
        renamed[name] = value.float()
    config = WhisperConfig(
        num_mel_bins=80, d_model=384, encoder_layers=layers, encoder_attention_heads=6, encoder_ffn_dim=1536
    )
    encoder = WhisperEncoder(config)
    encoder.load_state_dict(renamed)
    return encoder.eval()


@pytest.mark.parametrize("seed", [0, 1])
def test_states_are_transformers(seed: int, tmp_path: Path) -> None:
    layers = 2
    file = tmp_path / "whisper" / "tiny.pt"
    write_whisper(file, seed, layers)
    state = encoder_state(read_tensors(file)["model_state_dict"])
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 384, "n_audio_head": 6, "n_audio_layer": layers}
    encoder = AudioEncoder(dims)
    load_strict(encoder, state, file)
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(seed))
    other = theirs(state, layers)
    with torch.no_grad():
        ours = encoder(mel)
        x = F.gelu(other.conv2(F.gelu(other.conv1(mel)))).transpose(1, 2) + other.embed_positions.weight
        expected = [x]
        for layer in other.layers:
            x = layer(x, None)
            expected.append(x)
    torch.testing.assert_close(ours, torch.stack(expected, dim=2), rtol=0, atol=1e-5)
    assert sorted(encoder.state_dict()) == sorted(state)
