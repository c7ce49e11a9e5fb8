"""The U-Net's and SyncNet's trainings on tiny faces at 64 pixels: what a step sees, learns, saves and goes on from."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from lsx.errors import Cancelled, UsageError
from lsx.metrics.stable_sync import StableSync
from lsx.models import reference
from lsx.models.checkpoint import Checkpoint, read_tensors
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE, load_syncnet
from lsx.training.feature_store import TokenStore
from lsx.training.samples import SampleOptions, SyncNetSamples, UNetSamples
from lsx.training.shards import DataSet
from lsx.training.train import Callbacks, TrainOptions, plan_training, train
from tests.training_data import tiny_data

UNET: dict[str, Any] = {
    "data": {"resolution": 64},
    "ckpt": {"save_ckpt_steps": 2},
    "run": {
        "pixel_space_supervise": False,
        "trainable_modules": ["motion_modules.", "attentions."],
        "max_train_steps": 2,
        "validation_steps": 100,
        "inference_steps": 1,
        "seed": 3,
    },
    "optimizer": {"lr": 1e-3},
}
TOWER = {"block_out_channels": [32] * 6 + [128], "attn_blocks": [0, 0, 0, 0, 0, 1, 0]}
SYNCNET: dict[str, Any] = {
    "model": {
        "audio_encoder": TOWER | {"in_channels": 1, "downsample_factors": [[2, 1], 2, 2, 1, 2, 2, [2, 3]]},
        "visual_encoder": {
            "in_channels": 48,
            "block_out_channels": [32] * 5 + [128],
            "downsample_factors": [[1, 2], 2, 2, 2, 2, 2],
            "attn_blocks": [0] * 6,
        },
        "resolution": 64,
    },
    "data": {"resolution": 64, "batch_size": 2, "num_val_samples": 4},
    "run": {"max_train_steps": 2, "seed": 3},
    "optimizer": {"lr": 1e-3},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def options(tmp_path: Path, checkpoint: Callable[[int], Path]) -> Callable[..., TrainOptions]:
    def make(content: dict[str, Any] = UNET, *changes: str, **given: Any) -> TrainOptions:
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        where = {} if content is SYNCNET else {"checkpoint": checkpoint(64)}
        return TrainOptions(config=file, changes=changes, **(where | given))

    return make


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    content = read_tensors(folder / "latentsync_unet.pt")
    assert set(content) == {"global_step", "state_dict"}
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


def test_a_sample_is_what_the_data_holds(data: DataSet, tmp_path: Path, checkpoint: Callable[[int], Path]) -> None:
    encoder = Checkpoint(CheckpointFiles.in_folder(checkpoint(64))).audio_encoder()
    store = TokenStore(tmp_path / "audio")
    store.fill(data, data.rows, encoder)
    samples = UNetSamples(data, data.rows, store, SampleOptions(seed=3))
    for number in range(4):
        sample = samples[number]
        whole = {row.key: data.faces(row, range(row.frames)).transpose(0, 3, 1, 2) / 127.5 - 1 for row in data.rows}
        places = []
        for name in ("target", "reference"):
            faces = sample[name].numpy()
            key, start = next(
                (key, s)
                for key, frames in whole.items()
                for s in range(len(frames) - 15)
                if np.abs(frames[s : s + 16] - faces).max() < 1e-6
            )
            places.append((key, start))
        (key, target), (same_key, other) = places
        assert key == same_key
        assert abs(target - other) >= 16
        row = next(row for row in data.rows if row.key == key)
        wave = torch.from_numpy(data.samples(row).astype(np.float32) / 32768)
        tokens = reference.audio_tokens(encoder, wave, range(target, target + 16), (2, 2))
        assert torch.equal(sample["audio"], tokens)
        assert 0 <= int(sample["timestep"]) < 1000
        again = samples[number]
        assert all(torch.equal(sample[key], again[key]) for key in sample)


def test_fewer_frames_of_a_clip_are_frames_of_the_same_sample(data: DataSet, checkpoint: Callable[[int], Path]) -> None:
    files = Checkpoint(CheckpointFiles.in_folder(checkpoint(64)))
    store = TokenStore.of(data, files.hashes()["whisper"])
    store.fill(data, data.rows, files.audio_encoder())
    whole, few = (UNetSamples(data, data.rows, store, SampleOptions(seed=3, frames=n)) for n in (16, 4))
    for number in range(5):
        kept = range(number % 4, 16, 4)
        every, thinned = whole[number], few[number]
        for name in ("target", "reference", "audio", "noise.target", "noise.masked", "noise.reference"):
            assert torch.equal(thinned[name], every[name][list(kept)])
        assert torch.equal(thinned["noise.independent"], every["noise.independent"][:, list(kept)])
        for name in ("timestep", "noise.shared", "mel"):
            assert torch.equal(thinned[name], every[name])


def test_pairs_of_syncnet_are_right_about_half_the_time(data: DataSet) -> None:
    pairs = SyncNetSamples(data, data.rows, seed=3)
    right = [float(pairs[number]["together"]) for number in range(40)]
    assert 10 <= sum(right) <= 30


def test_paired_samples_have_one_sound_once_with_its_faces_and_once_with_others(data: DataSet) -> None:
    pairs = SyncNetSamples(data, data.rows, seed=3, paired=True)
    for number in range(0, 12, 2):
        right, wrong = pairs[number], pairs[number + 1]
        assert (float(right["together"]), float(wrong["together"])) == (1, 0)
        assert torch.equal(right["mel"], wrong["mel"])
        assert not torch.equal(right["faces"], wrong["faces"])
    assert not torch.equal(pairs[0]["mel"], pairs[2]["mel"])


@pytest.mark.parametrize("change", ["run.ema_decay=0.5", "run.lora_rank=2"])
def test_an_interrupted_training_goes_on_bit_for_bit(
    change: str, data: DataSet, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    given = options(UNET, change)
    whole = train("unet", data.folder, tmp_path / "whole", given).checkpoint
    interrupted = Callbacks(step=lambda report: os.kill(os.getpid(), signal.SIGINT) if report.step == 1 else None)
    with pytest.raises(Cancelled):
        train("unet", data.folder, tmp_path / "parts", given, callbacks=interrupted)
    parts = train("unet", data.folder, tmp_path / "parts", given, resume=True).checkpoint
    a, b = unet_of(whole), unet_of(parts)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_checkpoint_is_one_that_lsx_opens_and_says_what_it_lacks(
    data: DataSet, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    notes: list[str] = []
    given = options(UNET, "run.pixel_space_supervise=true", "run.max_train_steps=1")
    report = train("unet", data.folder, tmp_path / "run", given, callbacks=Callbacks(note=notes.append))
    assert notes[0].startswith("losses: reconstruction. Left out: sync (no stable_syncnet.pt")
    loaded = Checkpoint(CheckpointFiles.in_folder(report.checkpoint))
    loaded.check()
    assert loaded.spec.resolution == 64
    assert loaded.yaml["model"]["use_motion_module"]
    described = json.loads((report.checkpoint / "training.json").read_text())
    assert described["left_out"] == ["sync", "perceptual", "trepa"]
    shown = tmp_path / "run" / "validation" / report.checkpoint.name
    assert cv2.imread(str(shown / "strip.png")) is not None
    assert (shown / "clip.mp4").stat().st_size > 1000
    trained, before = unet_of(report.checkpoint), unet_of(given.checkpoint or Path())
    changed = {key for key in before if not torch.equal(trained[key], before[key])}
    assert changed
    assert all("motion_modules." in key or "attentions." in key for key in changed)


def test_one_clip_is_learnt(options: Callable[..., TrainOptions], tmp_path: Path) -> None:
    losses: list[float] = []
    one = tiny_data(tmp_path / "one", seeds=range(1), frames=48)
    changes = ("run.max_train_steps=40", "run.trainable_modules=['']", "run.cache_latents=true", "optimizer.lr=3e-3")
    given = options(UNET, *changes, "ckpt.save_ckpt_steps=1000")
    callbacks = Callbacks(step=lambda report: losses.append(report.losses["total"]))
    train("unet", one.folder, tmp_path / "run", given, callbacks=callbacks)
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:4])


def test_what_a_training_would_take(data: DataSet, options: Callable[..., TrainOptions]) -> None:
    plan, settings, notes = plan_training("unet", data.folder, options(UNET, "data.batch_size=2"))
    small = plan_training("unet", data.folder, options(UNET, "run.enable_gradient_checkpointing=false"))[0]
    assert settings.batch_size == 2
    assert notes == ("losses: reconstruction",)
    assert plan.steps_an_epoch == 2
    assert plan.optimizer_bytes == 12 * plan.trained < 12 * plan.parameters
    assert plan.activation_bytes < small.activation_bytes  # of half the batch, but nothing computed again
    assert not list(data.folder.parent.glob("run*"))


def test_syncnet_is_trained_evaluated_and_judges(
    data: DataSet, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    report = train("syncnet", data.folder, tmp_path / "run", options(SYNCNET))
    network = load_syncnet(report.checkpoint / STABLE_SYNCNET_FILE)
    assert network.config.visual_encoder.block_out_channels == (32,) * 5 + (128,)
    assert network.config.resolution == 64
    content = json.loads((tmp_path / "run" / "validation" / report.checkpoint.name / "evaluation.json").read_text())
    assert 0 <= content["accuracy"] <= 1
    assert sum(content["offsets"].values()) > 0
    row = data.rows[0]
    figures = StableSync(network).judge(data.faces(row, range(row.frames)), data.samples(row))
    assert figures is not None
    assert 0 <= figures.cosine <= 1
    assert -7 <= figures.offset <= 7
    again = options(SYNCNET, checkpoint=report.checkpoint / STABLE_SYNCNET_FILE)
    assert train("syncnet", data.folder, tmp_path / "more", again).steps == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("data.resolution=128",), "its faces are of 64 px, the configuration says 128"),
        (("run.trainable_modules=[nothing.]",), "no parameter's name holds one of nothing."),
        (("run.lora_rank=2", "run.trainable_modules=[nothing.]"), "no linear layer's name"),
        (("optimizer.lr_scheduler=circular",), "lr_scheduler is circular"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: tuple[str, ...], told: str, data: DataSet, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as raised:
        train("unet", data.folder, tmp_path / "run", options(UNET, *changes))
    assert told in str(raised.value)


def test_going_on_with_something_else_is_refused(
    data: DataSet, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    train("unet", data.folder, tmp_path / "run", options(UNET, "run.max_train_steps=1"))
    with pytest.raises(UsageError, match="was begun with another seed"):
        train("unet", data.folder, tmp_path / "run", options(UNET, "run.seed=4"), resume=True)
    notes: list[str] = []
    callbacks = Callbacks(note=notes.append)
    report = train("unet", data.folder, tmp_path / "run", options(UNET), resume=True, callbacks=callbacks)
    assert report.steps == 2
    assert "max_train_steps is 2 from here on; it was 1" in notes


def test_kept_latents_are_those_of_encoding_anew(
    data: DataSet, options: Callable[..., TrainOptions], tmp_path: Path
) -> None:
    steps: list[list[float]] = []
    for number, change in enumerate(("run.cache_latents=false", "run.cache_latents=true")):
        losses: list[float] = []
        callbacks = Callbacks(step=lambda report, losses=losses: losses.append(report.losses["total"]))  # type: ignore[misc]
        train("unet", data.folder, tmp_path / str(number), options(UNET, change), callbacks=callbacks)
        steps.append(losses)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("model.visual_encoder.downsample_factors=[4, 4, 4, 4, 4, 4]", "do not fit"),
        ("model.audio_encoder.block_out_channels=[32, 32, 32, 32, 32, 32, 64]", "end in 128 and 64 numbers"),
    ],
)
def test_towers_that_do_not_fit_are_refused(change: str, told: str, data: DataSet, tmp_path: Path) -> None:
    tower, value = change.removeprefix("model.").split("=")
    name, key = tower.split(".")
    model = SYNCNET["model"] | {name: SYNCNET["model"][name] | {key: yaml.safe_load(value)}}
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(SYNCNET | {"model": model}))
    with pytest.raises(UsageError) as raised:
        train("syncnet", data.folder, tmp_path / "run", TrainOptions(config=file))
    assert told in str(raised.value)
