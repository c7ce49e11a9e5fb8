"""A training step against the original's recorded numbers: losses, gradients, AdamW's first step, SyncNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lsx.core.noise import named_noise
from lsx.core.sync_mel import mel_window, syncnet_mel
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.random_checkpoint import seeded_weight
from lsx.models.stable_syncnet import StableSyncNet, SyncNetConfig
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from lsx.models.vae import Vae
from lsx.training.losses import LatentSyncLoss, LossWeights, UNetBatch, UNetDraws
from lsx.training.unet_task import choose_parameters
from tests.seeded_inputs import picture, waveform

ARRAYS = Path(__file__).parent / "arrays"
STAGE_2 = ("motion_modules.", "attentions.")


def recorded(name: str) -> Any:
    return json.loads((ARRAYS / name).read_text())


def seeded_syncnet() -> StableSyncNet:
    network = StableSyncNet(SyncNetConfig.from_mapping(recorded("syncnet_config.json"), "syncnet_config.json"))
    seeded = {k: seeded_weight(f"syncnet.{k}", tuple(v.shape), 0) for k, v in network.state_dict().items()}
    network.load_state_dict({k: torch.from_numpy(v) for k, v in seeded.items()})
    return network.eval().requires_grad_(False)


def clip(phase: float) -> Tensor:
    frames = np.stack([picture(256, 256, phase + 0.1 * i) for i in range(16)])
    return torch.from_numpy(frames.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()[None] / 127.5 - 1


def noise(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(named_noise(f"train.{name}", shape, 0))


def batch() -> UNetBatch:
    mel = mel_window(syncnet_mel(waveform(48000).astype(np.float32) / 32768), 12)
    return UNetBatch(
        target=clip(0),
        reference=clip(5),
        audio=noise("audio", 1, 16, 50, 384),
        mel=torch.from_numpy(mel)[None, None],
    )


def draws(timestep: int) -> UNetDraws:
    return UNetDraws(
        timesteps=torch.tensor([timestep]),
        target=noise("gt", 16, 4, 32, 32),
        masked=noise("masked", 16, 4, 32, 32),
        reference=noise("reference", 16, 4, 32, 32),
        shared=noise("noise.shared", 1, 4, 1, 32, 32),
        independent=noise("noise.independent", 1, 4, 16, 32, 32),
    )


def small_unet() -> UNet3D:
    torch.manual_seed(0)
    return UNet3D(UNetConfig.from_mapping(recorded("unet_config.json"), "unet_config.json"))


def encoding_once(vae: Vae) -> Vae:
    """`vae`, which remembers what it encoded: both time steps see the same faces, and no gradient goes back there."""
    encode = vae.encode
    known: dict[bytes, Any] = {}

    def remembered(pixels: Tensor) -> Any:
        key = pixels.numpy().tobytes()
        if key not in known:
            known[key] = encode(pixels)
        return known[key]

    vae.encode = remembered  # type: ignore[method-assign]
    return vae


@pytest.fixture(scope="module")
def parts(checkpoint: Callable[[int], Path]) -> tuple[UNet3D, LatentSyncLoss]:
    loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint(256)))
    unet = loaded.unet()
    for parameter in unet.parameters():
        parameter.data = parameter.data.clone()
    weights = LossWeights(perceptual=0, trepa=0)
    vae = loaded.vae()
    vae.checkpoint_gradients()
    loss = LatentSyncLoss(encoding_once(vae), torch.from_numpy(loaded.mask()), weights, syncnet=seeded_syncnet())
    return unet, loss


def test_stage_2_trains_the_parameters_that_the_original_trains() -> None:
    small = UNetConfig.from_mapping(recorded("unet_config.json"), "unet_config.json")
    with torch.device("meta"):
        chosen = choose_parameters(UNet3D(small), STAGE_2, motion=True)
    assert sorted(chosen) == sorted(recorded("training_names.json"))


def test_stage_1_leaves_the_motion_modules_out_and_their_weights_change_nothing() -> None:
    unet = small_unet()
    inputs = torch.randn(1, 13, 16, 8, 8), torch.tensor([481.0]), torch.randn(1, 16, 50, 384)
    unet.leave_out_motion()
    chosen = choose_parameters(unet, (), motion=False)
    with torch.no_grad():
        alone = unet(*inputs)[0]
        for block in (*unet.down_blocks, *unet.up_blocks):
            block.in_motion = True
        assert torch.equal(unet(*inputs)[0], alone)
    assert not any("motion_modules." in name for name in chosen)
    assert len(chosen) == sum("motion_modules." not in name for name, _ in unet.named_parameters())


@pytest.mark.parametrize("timestep", [481, 81])
def test_losses_gradients_and_the_first_step(
    timestep: int, parts: tuple[UNet3D, LatentSyncLoss], golden: Callable[[str], dict[str, np.ndarray[Any, Any]]]
) -> None:
    unet, loss = parts
    arrays = golden("training")
    choose_parameters(unet, STAGE_2, motion=True)
    named = dict(unet.named_parameters())
    trained = [named[name] for name in recorded("training_names.json")]
    unet.zero_grad(set_to_none=True)
    terms = loss(unet, batch(), draws(timestep))
    terms.total.backward()
    assert terms.sync is not None
    assert terms.clean is not None
    assert terms.pixels is not None
    for name, value in (("recon", terms.reconstruction), ("sync", terms.sync), ("loss", terms.total)):
        assert value.item() == pytest.approx(float(arrays[f"t{timestep}_{name}"]), rel=1e-5)
    clean = terms.clean[0].transpose(0, 1)[[0, 7, 15]].detach().numpy()
    assert np.abs(clean - arrays[f"t{timestep}_z0"]).max() < 5e-5
    pixels = terms.pixels[[0, 15]][:, :, ::4, ::4].detach().numpy()
    assert np.abs(pixels - arrays[f"t{timestep}_pixels"]).max() < 5e-5
    norms = np.array([p.grad.norm().item() for p in trained if p.grad is not None])
    np.testing.assert_allclose(norms, arrays[f"t{timestep}_grad_norms"], rtol=1e-4)
    if timestep == 481:
        total = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        assert float(total) == pytest.approx(float(arrays["t481_grad_total"]), rel=1e-5)
        before = [p.detach().clone() for p in trained]
        torch.optim.AdamW(trained, lr=1e-5).step()
        moved = [(p.detach() - b).norm().item() for p, b in zip(trained, before, strict=True)]
        np.testing.assert_allclose(moved, arrays["t481_step_norms"], rtol=1e-3)
        with torch.no_grad():
            for parameter, value in zip(trained, before, strict=True):
                parameter.copy_(value)


def test_gradients_are_the_same_where_they_are_checkpointed() -> None:
    unet = small_unet()
    inputs = torch.randn(2, 13, 16, 8, 8), torch.tensor([481.0, 20.0]), torch.randn(2, 16, 50, 384)
    norms = []
    for _ in range(2):
        unet.zero_grad(set_to_none=True)
        unet(*inputs)[0].square().mean().backward()
        norms.append([p.grad.norm().item() for p in unet.parameters() if p.grad is not None])
        unet.checkpoint_gradients()
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-6)


def test_every_clip_of_a_batch_has_its_own_time_step() -> None:
    unet = small_unet()
    sample, audio = torch.randn(2, 13, 16, 8, 8), torch.randn(2, 16, 50, 384)
    times = torch.tensor([481.0, 20.0])
    with torch.no_grad():
        together = unet(sample, times, audio)[0]
        for i in range(2):
            alone = unet(sample[i : i + 1], times[i : i + 1], audio[i : i + 1])[0]
            assert (together[i : i + 1] - alone).abs().max() < 1e-5


def test_syncnet_has_the_released_keys_and_numbers(golden: Callable[[str], dict[str, np.ndarray[Any, Any]]]) -> None:
    network, arrays = seeded_syncnet(), golden("training")
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == recorded("syncnet_keys.json")
    mel = syncnet_mel(waveform(48000).astype(np.float32) / 32768)
    assert np.abs(mel - arrays["mel"]).max() < 5e-5
    with torch.no_grad():
        _, heard = network(torch.zeros(1, 48, 128, 256), torch.from_numpy(mel_window(mel, 12))[None, None])
    assert np.abs(heard.numpy() - arrays["t481_audio"]).max() < 1e-5
