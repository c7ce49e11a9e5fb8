"""The PyTorch reference against the original's recorded numbers, in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.models import reference
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.mask import mask_at, mask_raster
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig

ARRAYS = Path(__file__).parent / "arrays"

Golden = Callable[[str], dict[str, np.ndarray[Any, Any]]]


@lru_cache(maxsize=1)
def _opened(folder: Path) -> tuple[Checkpoint, UNet3D]:
    loaded = Checkpoint(CheckpointFiles.in_folder(folder))
    return loaded, loaded.unet()


@pytest.fixture
def small(checkpoint: Callable[[int], Path]) -> tuple[Checkpoint, UNet3D]:
    return _opened(checkpoint(256))


def test_key_names_are_the_released_ones(small: tuple[Checkpoint, UNet3D]) -> None:
    loaded, unet = small
    for module, file in ((unet, "unet_keys"), (loaded.vae(), "vae_keys")):
        recorded = json.loads((ARRAYS / f"{file}.json").read_text())
        assert {key: list(value.shape) for key, value in module.state_dict().items()} == recorded
    whisper = torch.load(loaded.files.whisper, weights_only=True)["model_state_dict"]
    recorded = json.loads((ARRAYS / "whisper_keys.json").read_text())
    assert {key: list(value.shape) for key, value in whisper.items()} == recorded


def test_the_full_size_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        unet = UNet3D(UNetConfig())
    assert sum(p.numel() for p in unet.parameters()) == 1_267_099_844
    assert len(unet.state_dict()) == 1246


@pytest.mark.parametrize(
    ("case", "batch", "frames", "size", "timestep"),
    [
        ("b2f16h32", 2, 16, 32, 481),
        ("b1f16h32", 1, 16, 32, 981),
        ("b2f5h16", 2, 5, 16, 241),
        ("b2f1h32", 2, 1, 32, 1),
    ],
)
def test_unet(
    small: tuple[Checkpoint, UNet3D],
    golden: Golden,
    case: str,
    batch: int,
    frames: int,
    size: int,
    timestep: int,
) -> None:
    sample = torch.from_numpy(named_noise(f"{case}.sample", (batch, 13, frames, size, size), 0))
    audio = torch.from_numpy(named_noise(f"{case}.audio", (batch * frames, 50, 384), 0))
    with torch.inference_mode():
        noise, _ = small[1](sample, torch.tensor([float(timestep)]), audio)
    assert np.abs(noise.numpy() - golden("unet_forward")[case]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "interval"),
    [
        ("ddim4_guidance15", 4, 1.5, None),
        ("ddim4_guidance10", 4, 1.0, None),
        ("deepcache8_guidance15", 8, 1.5, 3),
        ("ddim20_final", 20, 1.5, None),
    ],
)
def test_denoising_loop(
    small: tuple[Checkpoint, UNet3D],
    golden: Golden,
    name: str,
    steps: int,
    guidance: float,
    interval: int | None,
) -> None:
    noise, conditioning, audio = (torch.from_numpy(a) for a in loop_inputs())
    options = SamplingOptions(steps=steps, guidance=guidance, cache_interval=interval)
    made = [latents.numpy() for latents in reference.denoise(small[1], noise, conditioning, audio, options)]
    recorded = golden("denoising")[name]
    result = made[-1] if name.endswith("final") else np.stack(made)
    assert np.abs(result - recorded).max() < 1e-3 * np.abs(recorded).max()


def loop_inputs() -> tuple[np.ndarray[Any, Any], ...]:
    """Noise, conditioning and audio of the recorded loops."""
    noise = np.repeat(named_noise("loop.noise", (1, 4, 1, 16, 16), 0), 16, axis=2)
    conditioning = named_noise("loop.conditioning", (1, 9, 16, 16, 16), 0)
    conditioning[:, 0] = conditioning[:, 0] > 0
    return noise, conditioning, named_noise("loop.audio", (16, 50, 384), 0)


def test_vae(small: tuple[Checkpoint, UNet3D], golden: Golden) -> None:
    vae, recorded = small[0].vae(), golden("vae")
    image = torch.tanh(torch.from_numpy(named_noise("vae.image", (2, 3, 64, 64), 0)))
    noise = torch.from_numpy(named_noise("vae.noise", (2, 4, 8, 8), 0))
    latents = reference.encode(vae, image, noise)
    assert np.abs(latents.numpy() - recorded["latents"]).max() < 1e-4
    decoded = reference.decode(vae, torch.from_numpy(recorded["latents"]))
    assert np.abs(decoded.numpy() - recorded["decoded"]).max() < 1e-4


def test_the_released_mask() -> None:
    raster = mask_raster()
    assert raster.shape == (256, 256)
    assert (raster == 0).sum() == 26_673
    assert set(np.unique(mask_at(raster, 256))) == {0.0, 1.0}
    assert len(np.unique(mask_at(raster, 512))) == 136
