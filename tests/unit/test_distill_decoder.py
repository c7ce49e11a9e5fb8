"""`lsx distill vae`: a small decoder learns from the full one, in a checkpoint that is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lsx.errors import Cancelled, CheckpointError, UsageError
from lsx.metrics.perceptual import Lpips
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import SAMPLING_FILE, CheckpointFiles
from lsx.models.pixels import pixels_of
from lsx.models.vae import Vae, VaeConfig
from lsx.training.decoder_task import DecoderTask, decoder_flops, small_config
from lsx.training.distill_decoder import distill_decoder, plan_decoder
from lsx.training.distill_options import DecoderOptions
from lsx.training.reports import StepReport
from lsx.training.shards import DataSet
from lsx.training.train import Callbacks
from lsx.training.unet_task import UNetSources
from tests.training_data import tiny_data
from tests.unit.test_learned import lpips_folder

FULL = VaeConfig()
ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "data": {"resolution": 64, "batch_size": 4},
    "ckpt": {"save_ckpt_steps": 2},
    "run": {"max_train_steps": 4, "validation_steps": 100, "mixed_precision": "no", "ema_decay": 0.5, "seed": 3},
    "optimizer": {"lr": 1e-3},
}


def test_the_default_has_less_than_a_quarter_of_the_flops() -> None:
    assert decoder_flops(FULL, 32) / 1e12 == pytest.approx(0.622, rel=0.01)  # the known figure at 256 px
    small = small_config(FULL, None, None)
    assert (small.decoder_widths, small.decoder_layers) == ((64, 128, 256, 256), 1)
    assert 0.1 < decoder_flops(small, 32) / decoder_flops(FULL, 32) < 0.25


@pytest.mark.parametrize(
    ("widths", "layers", "told"),
    [((64, 128), None, "64, 128 channels; give 4 multiples of 32"), ((48, 64, 64, 64), 1, "4 multiples of 32"),
     (None, -1, "-1 layers a block")],
)  # fmt: skip
def test_decoders_that_cannot_be(widths: tuple[int, ...] | None, layers: int | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        small_config(FULL, widths, layers)


def test_a_configuration_comes_back_from_its_file(tmp_path: Path) -> None:
    import json

    file = tmp_path / "config.json"
    for config in (FULL, small_config(FULL, None, None)):
        file.write_text(json.dumps(config.as_mapping()))
        assert VaeConfig.from_file(file) == config
    assert "decoder_layers_per_block" not in FULL.as_mapping()  # diffusers' own file
    file.write_text(json.dumps(FULL.as_mapping() | {"decoder_block_out_channels": [1, 2]}))
    with pytest.raises(CheckpointError, match="give 4 multiples of 32"):
        VaeConfig.from_file(file)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def options(tmp_path: Path, checkpoint: Callable[[int], Path]) -> Callable[..., DecoderOptions]:
    def make(*changes: str) -> DecoderOptions:
        file = tmp_path / "decoder.yaml"
        file.write_text(yaml.safe_dump(SETTINGS))
        return DecoderOptions(checkpoint=checkpoint(64), config=file, changes=changes)

    return make


def vae_of(folder: Path) -> Vae:
    return Checkpoint(CheckpointFiles.in_folder(folder)).vae()


def decibels(data: DataSet, small: Path, full: Path) -> float:
    """PSNR of what is painted, over 64 frames of the data, by NumPy."""
    inside = Checkpoint(CheckpointFiles.in_folder(full)).mask() < 0.5
    networks, errors = (vae_of(small), vae_of(full)), []
    for number in range(64):
        row = data.rows[number % len(data.rows)]
        face = data.faces(row, range(7 * number % row.frames, 7 * number % row.frames + 1))
        with torch.no_grad():
            latents = networks[1].encode(pixels_of(face)).mean
            drawn = [(network.decode(latents)[0].numpy().astype(np.float64) + 1) * 127.5 for network in networks]
        one, other = (pixels.round().clip(0, 255)[:, inside] for pixels in drawn)
        errors.append((one - other) ** 2)
    return float(10 * np.log10(255**2 / np.mean(errors)))


def test_data_and_checkpoint_of_two_resolutions(data: DataSet, options: Callable[..., DecoderOptions]) -> None:
    with pytest.raises(UsageError, match="the checkpoint is of 64 px, the configuration says 128"):
        plan_decoder(data.folder, options("data.resolution=128"))


def test_its_loss_is_the_painted_pixels(data: DataSet, options: Callable[..., DecoderOptions]) -> None:
    given = options()
    full = Checkpoint(CheckpointFiles.in_folder(given.checkpoint))
    config = small_config(full.vae().config, None, None)
    task = DecoderTask(given.settings(), UNetSources(checkpoint=full, data=data), config)
    task.to(torch.device("cpu"))
    task.prepare(0, 1)
    latents = torch.stack([task.samples[number]["latents"] for number in range(3)])
    assert torch.equal(latents[1], task.samples[1]["latents"])
    with torch.no_grad():
        measured = float(task.loss(task.module, {"latents": latents})["total"])
        drawn = task.module.decoder(task.module.post_quant_conv(latents)).numpy()
        wanted = full.vae().decode(latents).numpy()
    weight = np.where(full.mask() < 0.5, 1.0, 0.05)
    expected = (((drawn - wanted) ** 2).mean(axis=(0, 1)) * weight).sum() / weight.sum()
    assert measured == pytest.approx(float(expected), rel=1e-5)


def test_a_small_decoder_is_learnt_and_goes_on_bit_for_bit(
    data: DataSet, options: Callable[..., DecoderOptions], tmp_path: Path
) -> None:
    given = options()
    (teacher := tmp_path / "student").mkdir()
    for entry in given.checkpoint.iterdir():
        (teacher / entry.name).symlink_to(entry)
    (teacher / SAMPLING_FILE).write_text("{}")
    given = replace(given, checkpoint=teacher)
    notes: list[str] = []
    whole = distill_decoder(data.folder, tmp_path / "whole", given, callbacks=Callbacks(note=notes.append))
    (told,) = (note for note in notes if "dB of PSNR where the model paints" in note)
    assert float(told.split()[0]) == pytest.approx(decibels(data, whole.checkpoint, given.checkpoint), abs=0.006)
    assert (whole.checkpoint / SAMPLING_FILE).read_text() == "{}"  # a student stays one
    Checkpoint(CheckpointFiles.in_folder(whole.checkpoint)).check()
    small, full = vae_of(whole.checkpoint), vae_of(given.checkpoint)
    assert small.config == small_config(full.config, None, None)
    encoder = full.encoder.state_dict()
    assert all(torch.equal(value, encoder[key]) for key, value in small.encoder.state_dict().items())

    def stop(report: StepReport) -> None:
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Cancelled):
        distill_decoder(data.folder, tmp_path / "parts", given, callbacks=Callbacks(step=stop))
    parts = distill_decoder(data.folder, tmp_path / "parts", given, resume=True)
    again = vae_of(parts.checkpoint).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in small.state_dict().items())
    with pytest.raises(UsageError, match="begun with another decoder"):
        distill_decoder(data.folder, tmp_path / "parts", replace(given, layers=2), resume=True)


def test_it_comes_nearer(data: DataSet, options: Callable[..., DecoderOptions], tmp_path: Path) -> None:
    losses: list[float] = []
    callbacks = Callbacks(step=lambda report: losses.append(report.losses["total"]))
    given = options("run.max_train_steps=30", "optimizer.lr=3e-3", "ckpt.save_ckpt_steps=1000")
    distill_decoder(data.folder, tmp_path / "out", given, callbacks=callbacks)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_its_size_is_told_without_training(data: DataSet, options: Callable[..., DecoderOptions]) -> None:
    plan, settings, notes = plan_decoder(data.folder, options())
    assert (plan.steps, settings.batch_size) == (4, 4)
    assert plan.trained == plan.parameters > 0
    assert "% of the FLOPs" in notes[0]


def test_it_is_judged_on_frames_that_it_never_saw(
    data: DataSet, options: Callable[..., DecoderOptions], tmp_path: Path
) -> None:
    other = tiny_data(tmp_path / "other", seeds=range(20, 22))
    given, notes = replace(options("run.max_train_steps=1"), validation=other.folder), list[str]()
    made = distill_decoder(data.folder, tmp_path / "out", given, callbacks=Callbacks(note=notes.append))
    (told,) = (note for note in notes if "dB of PSNR where the model paints" in note)
    assert "frames that it never saw" in told
    assert float(told.split()[0]) == pytest.approx(decibels(other, made.checkpoint, given.checkpoint), abs=0.006)


def test_its_perceptual_loss_is_of_what_is_painted(
    data: DataSet, options: Callable[..., DecoderOptions], tmp_path: Path
) -> None:
    """LPIPS of both pictures with all else black, by the judge that is held to the package's own numbers."""
    given = replace(options("run.perceptual_loss_weight=0.5"), auxiliary=lpips_folder(tmp_path))
    full = Checkpoint(CheckpointFiles.in_folder(given.checkpoint))
    config = small_config(full.vae().config, None, None)
    sources = UNetSources(checkpoint=full, data=data, auxiliary=given.auxiliary)
    task = DecoderTask(given.settings(), sources, config)
    assert task.notes[1] == "losses: reconstruction, perceptual"
    task.to(torch.device("cpu"))
    task.prepare(0, 1)
    latents = torch.stack([task.samples[number]["latents"] for number in range(2)])
    with torch.no_grad():
        losses = {name: float(value) for name, value in task.loss(task.module, {"latents": latents}).items()}
        drawn = task.module.decoder(task.module.post_quant_conv(latents)).numpy()
        wanted = full.vae().decode(latents).numpy()
    painted = (full.mask() < 0.5).astype(np.float32)
    judge = Lpips(tmp_path)
    pictures = [torch.from_numpy(pixels * painted) for pixels in (drawn, wanted)]
    with torch.no_grad():
        expected = float(judge.loss(*pictures))
    assert losses["perceptual"] == pytest.approx(expected, rel=1e-4)
    assert losses["total"] == pytest.approx(losses["reconstruction"] + 0.5 * expected, rel=1e-5)


def test_two_processes_are_one_that_accumulates(
    data: DataSet, options: Callable[..., DecoderOptions], tmp_path: Path
) -> None:
    changes = ("data.batch_size=2", "run.max_train_steps=2")
    given, accumulating = options(*changes), options(*changes, "run.gradient_accumulation_steps=2")
    whole = distill_decoder(data.folder, tmp_path / "one", accumulating)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lsx"]
    given_here = [part for change in changes for part in ("--set", change)]
    command = ["distill", "vae", str(given.checkpoint), "--data", str(data.folder), "-o", str(tmp_path / "two")]
    subprocess.run(
        [*launch, *command, "--config", str(given.config), *given_here],
        check=True,
        timeout=600,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    two = sorted((tmp_path / "two" / "checkpoints").glob("step-*"))[-1]
    one, other = vae_of(whole.checkpoint).state_dict(), vae_of(two).state_dict()
    assert one.keys() == other.keys()
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-5
