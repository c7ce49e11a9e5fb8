"""The VAE against diffusers' own, with the same weights; the folders that it is read from, and those it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from lsx.errors import CheckpointError
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.random_checkpoint import random_checkpoint
from lsx.models.vae import Vae, VaeConfig

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SIZES: list[dict[str, Any]] = [
    {"block_out_channels": (16, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8},
    {"block_out_channels": (32, 32, 64, 96), "layers_per_block": 2, "norm_num_groups": 16},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("picture", [(64, 64), (96, 40)])
def test_it_is_diffusers(size: dict[str, Any], picture: tuple[int, int]) -> None:
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    torch.manual_seed(3)
    theirs = AutoencoderKL(**kinds, latent_channels=4, **size).eval()
    torch.manual_seed(3)
    ours = Vae(VaeConfig(**size)).eval()
    for key, value in theirs.state_dict().items():  # new weights, too: the same of the same seed
        assert torch.equal(ours.state_dict()[key], value), key
    pixels, latents = torch.randn(2, 3, *picture), torch.randn(2, 4, picture[0] // 8, picture[1] // 8)
    with torch.no_grad():
        expected, found = theirs.encode(pixels).latent_dist, ours.encode(pixels)
        torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.deviation, expected.std, rtol=1e-6, atol=0)
        torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=0, atol=1e-6)


def test_gradients_that_are_computed_again_are_the_same() -> None:
    torch.manual_seed(0)
    vae, pixels = Vae(VaeConfig(**SIZES[0])), torch.randn(1, 3, 32, 32)
    gradients = []
    for _ in range(2):
        vae.zero_grad()
        vae.decode(vae.encode(pixels).mean).square().mean().backward()
        gradients.append([p.grad.clone() for p in vae.parameters() if p.grad is not None])
        vae.checkpoint_gradients()
    assert len(gradients[0]) > 100
    for once, again in zip(*gradients, strict=True):
        torch.testing.assert_close(once, again, rtol=0, atol=1e-7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_checkpoint(tmp_path / "checkpoint", size="minimal", resolution=64)
    return tmp_path / "checkpoint"


def opened(folder: Path) -> Vae:
    return Checkpoint(CheckpointFiles.in_folder(folder)).vae()


@pytest.mark.parametrize("kind", ["linear", "convolution", "bin"])
def test_attention_s_old_names_and_files_are_read(folder: Path, kind: str) -> None:
    """The published folder has names of before 2023; older ones have convolutions; some have no safetensors."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    expected = {key: value.clone() for key, value in state.items()}
    old = {}
    for key, value in state.items():
        name = re.sub(r"to_(q|k|v|out\.0)(?=\.)", lambda found: OLD[found[0]], key)
        squares = name != key and value.ndim == 2 and kind == "convolution"
        old[name] = value[..., None, None].contiguous() if squares else value
    assert sum(".query." in name for name in old) == 4
    file.unlink()
    if kind == "bin":
        torch.save(old, file.with_suffix(".bin"))
    else:
        save_file(old, file)
    read = opened(folder).state_dict()
    assert sorted(read) == sorted(expected)
    assert all(torch.equal(read[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "gelu"}, r"config\.json: act_fn is gelu; lsx has VAEs with silu"),
        ({"latent_channels": 16}, r"latent_channels is 16; lsx has VAEs with 4"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 4}, "down_block_types is .*lsx has VAEs with"),
        ({"layers_per_block": 2}, r"the weights do not fit the configuration: .* is missing"),
        ({"block_out_channels": None}, "not the configuration of a VAE"),
    ],
)
def test_another_vae_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    file = folder / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        opened(folder)


@pytest.mark.parametrize("damage", ["cut", "gone", "no configuration", "not JSON"])
def test_a_damaged_folder_is_refused(folder: Path, damage: str) -> None:
    weights, config = folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "vae" / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "gone":
        weights.unlink()
    elif damage == "no configuration":
        config.unlink()
    else:
        config.write_text("{", encoding="utf-8")
    expected = {
        "cut": "not a whole safetensors file",
        "gone": "no diffusion_pytorch_model.safetensors or .* in it; this is not a VAE's folder",
        "no configuration": r"config\.json: cannot be read",
        "not JSON": "not the configuration of a VAE",
    }
    with pytest.raises(CheckpointError, match=expected[damage]):
        opened(folder)
