"""LPIPS, TREPA's VideoMAE and SyncNet against the published packages' numbers, transformers, and planted shifts.

`arrays/judges.npz` was recorded once from lpips 0.1.4 and python_speech_features 0.6 on these seeded inputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEModel

from lsx.errors import CheckpointError, UsageError
from lsx.metrics import syncnet
from lsx.metrics.learned import LearnedMetrics
from lsx.metrics.perceptual import Lpips, Trepa, VideoTransformer
from lsx.metrics.syncnet import SyncNet, SyncNetModel, mfcc
from lsx.metrics.weight_files import LPIPS_FILES, SYNCNET_FILE, VIDEOMAE_FILE
from lsx.models.random_checkpoint import seeded_weight
from tests.seeded_inputs import picture, waveform

RECORDED = Path(__file__).parents[1] / "golden" / "arrays" / "judges.npz"
WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)


def vgg_weights() -> dict[str, Tensor]:
    """torchvision's names: two places a convolution, one a pooling."""
    state: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(2, 2)}
    place, before = 0, 3
    for width in WIDTHS:
        if not width:
            place += 1
            continue
        for leaf, shape in (("weight", (width, before, 3, 3)), ("bias", (width,))):
            key = f"features.{place}.{leaf}"
            state[key] = torch.from_numpy(seeded_weight(key, shape, 0))
        place, before = place + 2, width
    return state


def linear_weights() -> dict[str, Tensor]:
    shapes = {f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate((64, 128, 256, 512, 512))}
    return {key: torch.from_numpy(np.abs(seeded_weight(key, shape, 0))) for key, shape in shapes.items()}


def lpips_folder(folder: Path) -> Path:
    torch.save(vgg_weights(), folder / LPIPS_FILES[0])
    torch.save(linear_weights(), folder / LPIPS_FILES[1])
    return folder


def test_lpips_is_the_packages(tmp_path: Path) -> None:
    judge = Lpips(lpips_folder(tmp_path))
    first, second = picture(64, 64, 0.0), picture(64, 64, 0.3)
    with np.load(RECORDED) as recorded:
        np.testing.assert_allclose(judge.map(first, second), recorded["lpips"], atol=2e-6)
    assert judge.map(first, first).max() == 0


def test_mfcc_is_the_packages() -> None:
    with np.load(RECORDED) as recorded:
        np.testing.assert_allclose(mfcc(waveform(5000)), recorded["mfcc"], atol=1e-9)


def test_the_video_transformer_is_transformers(tmp_path: Path) -> None:
    """Blocks and pooling under VideoMAE v2's names, against transformers' VideoMAE with the same weights."""
    ours = VideoTransformer(width=32, depth=2, heads=4, inner=64, patch=56)
    state = {
        key: torch.from_numpy(seeded_weight(key, tuple(value.shape), 0)) for key, value in ours.state_dict().items()
    }
    torch.save({"module": state | {"head.weight": torch.zeros(2)}}, tmp_path / VIDEOMAE_FILE)
    judge = Trepa(tmp_path, ours)
    config = VideoMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        patch_size=56,
        layer_norm_eps=1e-6,
    )
    theirs = VideoMAEModel(config).eval()
    names = {"embeddings.patch_embeddings.projection": "patch_embed.proj"}
    for i in range(2):
        names |= {
            f"encoder.layer.{i}.attention.output.dense": f"blocks.{i}.attn.proj",
            f"encoder.layer.{i}.intermediate.dense": f"blocks.{i}.mlp.fc1",
            f"encoder.layer.{i}.output.dense": f"blocks.{i}.mlp.fc2",
            f"encoder.layer.{i}.layernorm_before": f"blocks.{i}.norm1",
            f"encoder.layer.{i}.layernorm_after": f"blocks.{i}.norm2",
        }
    mapped = {f"{a}.{leaf}": state[f"{b}.{leaf}"] for a, b in names.items() for leaf in ("weight", "bias")}
    for i in range(2):
        inside = f"encoder.layer.{i}.attention.attention"
        parts = state[f"blocks.{i}.attn.qkv.weight"].chunk(3)
        mapped |= {f"{inside}.{n}.weight": part for n, part in zip(("query", "key", "value"), parts, strict=True)}
        mapped |= {f"{inside}.query.bias": state[f"blocks.{i}.attn.q_bias"]}
        mapped |= {f"{inside}.value.bias": state[f"blocks.{i}.attn.v_bias"]}
    missing, unexpected = theirs.load_state_dict(mapped, strict=False)
    assert not unexpected
    assert all("layernorm" in key for key in missing)  # the last one, which mean pooling takes the place of
    video = torch.rand(1, 16, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hidden = theirs.encoder(theirs.embeddings(video, None))[0]
        norm = nn.functional.layer_norm(hidden.mean(1), (32,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)
        np.testing.assert_allclose(ours(video.transpose(1, 2)).numpy(), norm.numpy(), atol=1e-5)
    clips = [np.stack([picture(80, 80, phase + i / 20) for i in range(16)]) for phase in (0.0, 0.4)]
    assert judge.distance(clips[0], clips[0]) == 0
    assert judge.distance(clips[0], clips[1]) > 1e-6


class _Towers(nn.Module):
    """Towers that agree where a face is as bright as the sound's first cepstral coefficient is high."""

    def lips(self, frames: Tensor) -> Tensor:
        return frames[:, 0, 0, 0, :1] / 255 * torch.ones(1, 4)

    def sound(self, features: Tensor) -> Tensor:
        return features[:, 0, 0, :1] * torch.ones(1, 4)


@pytest.mark.parametrize("shift", [-4, 0, 3])
def test_syncnet_finds_a_planted_shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    judge = SyncNet(syncnet_folder(tmp_path))
    judge._model = _Towers()  # type: ignore[assignment]
    levels = np.random.default_rng(0).integers(0, 256, 80)
    faces = np.broadcast_to(levels[20:60, None, None, None], (40, 8, 8, 3)).astype(np.uint8)
    heard = np.repeat(levels[20 + shift : 60 + shift] / 255, 4)[:, None] * np.ones(13)
    monkeypatch.setattr(syncnet, "mfcc", lambda _: heard)
    found = judge.judge(faces, np.zeros(1, np.int16))
    assert found is not None
    assert found.offset == shift
    assert found.confidence > 0.3


def syncnet_folder(folder: Path) -> Path:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in SyncNetModel().state_dict().items()}
    kept = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    state = {key: torch.from_numpy(np.abs(seeded_weight(key, shape, 0))) for key, shape in kept.items()}
    torch.save(state, folder / SYNCNET_FILE)
    return folder


def test_syncnets_towers(tmp_path: Path) -> None:
    faces = np.stack([picture(96, 96, i / 9) for i in range(12)])
    found = SyncNet(syncnet_folder(tmp_path)).judge(faces, waveform(640 * 12))
    assert found is not None
    assert found.distance > 0
    assert SyncNet(tmp_path).judge(faces[:5], waveform(640 * 5)) is None


def test_a_folder_of_judges(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights to judge with"):
        LearnedMetrics(tmp_path)
    judges = LearnedMetrics(syncnet_folder(tmp_path))
    assert judges.syncnet is not None
    assert judges.lpips is None
    torch.save({"netcnnaud.0.weight": torch.zeros(1)}, tmp_path / SYNCNET_FILE)
    with pytest.raises(CheckpointError, match="do not fit"):
        LearnedMetrics(tmp_path)
