"""StableSyncNet as a judge: a planted shift, what is too short, and its place in LearnedMetrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import Tensor, nn

from lsx.core.sync_mel import latest_window, mel_window
from lsx.errors import CheckpointError
from lsx.metrics import stable_sync
from lsx.metrics.learned import LearnedMetrics
from lsx.metrics.stable_sync import StableSync, offset_histogram
from lsx.models.stable_syncnet import (
    STABLE_SYNCNET_FILE,
    EncoderConfig,
    StableSyncNet,
    SyncNetConfig,
    load_syncnet,
    lower_half,
)


def place(frame: Tensor) -> Tensor:
    """A direction that turns a little with every frame."""
    return torch.stack([torch.cos(0.1 * frame), torch.sin(0.1 * frame)], dim=1)


class Clock(nn.Module):
    """Reads the frame's number off faces and sound."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SyncNetConfig()
        self.nothing = nn.Parameter(torch.zeros(1))

    def visual_encoder(self, looks: Tensor) -> Tensor:
        return place((looks[:, 0, 64, 128] + 1) * 127.5)

    def audio_encoder(self, mel: Tensor) -> Tensor:
        return place(mel[:, 0, 0, 0] * 25 / 80)


@pytest.mark.parametrize("shift", [0, 3, -5])
def test_a_planted_shift_is_found(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.arange(60, dtype=np.uint8)[:, None, None, None]
    faces = np.ascontiguousarray(np.broadcast_to(frames, (60, 32, 32, 3)))
    columns = np.broadcast_to(np.arange(193, dtype=np.float32) + shift * 80 / 25, (80, 193))
    monkeypatch.setattr(stable_sync, "syncnet_mel", lambda _: columns)
    network: Any = Clock()
    figures = StableSync(network).judge(faces, np.zeros(60 * 640, np.int16))
    assert figures is not None
    assert figures.offset == shift  # the sound of a later frame is heard: it comes early
    assert figures.cosine == pytest.approx(np.cos(0.1 * shift), abs=0.02)
    assert StableSync(network).judge(faces[:29], np.zeros(29 * 640, np.int16)) is None


def test_histogram() -> None:
    histogram = offset_histogram([0, 0, -1, 7])
    assert histogram[0] == 2
    assert sum(histogram.values()) == 4
    assert list(histogram) == list(range(-7, 8))


def test_the_sound_of_a_window_ends_in_time() -> None:
    mel = np.zeros((80, 100), np.float32)
    assert mel_window(mel, 15).shape == (80, 52)
    with pytest.raises(ValueError, match="the sound ends at column 100"):
        mel_window(mel, 16)


@pytest.mark.parametrize("frames", [16, 17, 47, 64, 125, 251])
def test_the_latest_window_is_the_last_that_fits(frames: int) -> None:
    mel = np.zeros((80, frames * 640 // 200 + 1), np.float32)
    last = latest_window(mel.shape[1], frames)
    fitting = []
    for start in range(frames - 15):
        try:
            fitting.append((start, mel_window(mel, start).shape)[0])
        except ValueError:
            continue
    assert last == max(fitting, default=-1)


def tower(channels: int, levels: int, last: int = 128) -> dict[str, Any]:
    return {
        "in_channels": channels,
        "block_out_channels": [32] * (levels - 1) + [last],
        "downsample_factors": [2] * levels,
        "attn_blocks": [0] * levels,
    }


def test_its_weights_are_found_with_their_configuration(tmp_path: Path) -> None:
    model = {"audio_encoder": tower(1, 6), "visual_encoder": tower(48, 8)}
    assert SyncNetConfig.from_mapping(model, "model").resolution == SyncNetConfig().resolution == 256
    network = StableSyncNet(SyncNetConfig.from_mapping(model | {"resolution": 128}, "model"))
    assert network.config.as_mapping()["audio_encoder"]["downsample_factors"] == [[2, 2]] * 6
    file = tmp_path / STABLE_SYNCNET_FILE
    torch.save({"global_step": 1, "state_dict": network.state_dict()}, file)
    with pytest.raises(CheckpointError, match="do not fit"):
        LearnedMetrics(tmp_path)  # the released configuration, where no other is beside it
    file.with_suffix(".yaml").write_text(yaml.safe_dump({"model": network.config.as_mapping()}))
    learned = LearnedMetrics(tmp_path)
    assert learned.stable_sync is not None
    assert load_syncnet(file).config == network.config
    assert learned.syncnet is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"block_out_channels": [32] * 5 + [100]}, "give multiples of 32"),
        ({"block_out_channels": [32] * 6}, "give 128 or more"),
        ({"attn_blocks": [0]}, "give as many of each"),
        ({"downsample_factors": "x"}, "lacks or misstates"),
    ],
)
def test_configurations_that_cannot_be(change: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        EncoderConfig.from_mapping(tower(1, 6) | change, "model")
    assert told in str(raised.value)
    with pytest.raises(CheckpointError, match="no section audio_encoder"):
        SyncNetConfig.from_mapping({}, "model")


@pytest.mark.parametrize(
    ("resolution", "told"), [("wide", "resolution is 'wide'"), (31, "an even number of 32 or more")]
)
def test_resolutions_that_cannot_be(resolution: Any, told: str) -> None:
    model = {"audio_encoder": tower(1, 6), "visual_encoder": tower(48, 8), "resolution": resolution}
    with pytest.raises(CheckpointError) as raised:
        SyncNetConfig.from_mapping(model, "model")
    assert told in str(raised.value)


def test_faces_of_another_size_are_resized_to_its_own() -> None:
    faces = torch.rand(16, 3, 96, 96)
    looks = lower_half(faces, 64)
    assert looks.shape == (1, 48, 32, 64)
    whole = F.interpolate(faces, size=(64, 64), mode="bicubic")
    assert torch.equal(looks[0, 3:6], whole[1, :, 32:])  # of the second frame
    assert torch.equal(lower_half(whole, 64), looks)
