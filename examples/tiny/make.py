"""Train lsx-tiny from nothing: python -m examples.tiny.make FOLDER. What is there already is used again."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from examples.commands import lsx, lsx_train
from examples.tiny.card import write_card
from examples.tiny.checkpoint import MODEL, new_checkpoint, pack, tiny_checkpoint
from examples.tiny.dataset import HELD_OUT, fill_tokens, write_dataset
from examples.tiny.vae import psnr, scale_latents, sharpen_vae, train_vae, write_vae
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.training.feature_store import TokenStore
from lsx.training.shards import DataSet

__all__ = ["main", "make"]

CONFIGS = Path(__file__).parent / "configs"
CLIPS, VALIDATION_CLIPS = 500, 24
VAE_STEPS, SHARP_STEPS = 6000, 4000
CORES = 2  # that it is made for: a training's numbers depend on its processes, and sums on threads


@contextmanager
def _timed(folder: Path, part: str) -> Iterator[None]:
    """Add the seconds that a part takes to `seconds.json`: a training that was stopped goes on there."""
    file, started = folder / "seconds.json", time.perf_counter()
    yield
    seconds = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    seconds[part] = round(seconds.get(part, 0) + time.perf_counter() - started)
    file.write_text(json.dumps(seconds), encoding="utf-8")
    print(f"{part}: {seconds[part]} s", flush=True)


def _trained(folder: Path, *arguments: str, processes: int = CORES) -> Path:
    """A training into `folder`, gone on with where one is there; its last checkpoint."""
    resume = ["--resume"] if (folder / "run.json").is_file() else []
    if not (folder / "done").is_file():
        lsx_train(*arguments, "-o", str(folder), *resume, processes=processes)
        (folder / "done").touch()
    return sorted((folder / "checkpoints").glob("step-*"))[-1]


def _data(folder: Path) -> tuple[Path, Path]:
    """The faces to train on, and those to validate with."""
    detector, data, held_out = folder / "detector", folder / "data", folder / "held-out"
    with _timed(folder, "data"):
        if not detector.exists():  # any bundle has the face models
            lsx("checkpoint", "random", str(folder / "random"), "--resolution", "64")
            lsx("export", str(folder / "random"), "-o", str(detector), "--precision", "fp32", "--no-build")
        if not data.exists():
            write_dataset(detector, data, range(CLIPS))
        if not held_out.exists():
            write_dataset(detector, held_out, range(HELD_OUT, HELD_OUT + VALIDATION_CLIPS), frames=96)
    return data, held_out


def _vae(folder: Path, data: Path, held_out: Path) -> None:
    if (folder / "vae").exists():
        return
    torch.set_num_threads(1)  # SyncNet has the other core
    vae = train_vae(DataSet.open(data), VAE_STEPS)
    sharpen_vae(vae, DataSet.open(data), SHARP_STEPS)
    scale_latents(vae, DataSet.open(data))
    torch.set_num_threads(CORES)
    decibels = round(psnr(vae, DataSet.open(held_out)), 2)
    print(f"VAE: {decibels} dB on faces that it never saw", flush=True)
    report = {"clips": CLIPS, "steps": VAE_STEPS + SHARP_STEPS, "psnr": decibels}
    (folder / "vae.json").write_text(json.dumps(report), encoding="utf-8")
    write_vae(vae, folder / "vae")


def _base(folder: Path, data: DataSet) -> Path:
    """A checkpoint with the trained VAE and nothing else of use; its audio encoder's tokens are kept in the data."""
    base = folder / "base"
    with _timed(folder, "tokens"):
        if not base.exists():
            model = yaml.safe_load((CONFIGS / "stage1.yaml").read_text(encoding="utf-8"))["model"]
            new_checkpoint(base, folder / "vae", model)
        checkpoint = Checkpoint(CheckpointFiles.in_folder(base))
        fill_tokens(data, TokenStore.of(data, checkpoint.hashes()["whisper"]), checkpoint.audio_encoder())
    return base


def make(folder: Path) -> Path:
    """Everything under `folder`; returns the last checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(CORES)
    data, held_out = _data(folder)
    common = ["--data", str(data), "--validation", str(held_out)]
    with _timed(folder, "vae, syncnet"), ThreadPoolExecutor(1) as beside:
        asked = ["syncnet", str(CONFIGS / "syncnet.yaml"), *common]
        syncnet = beside.submit(_trained, folder / "syncnet", *asked, processes=1)
        _vae(folder, data, held_out)
        syncnet.result()
    base = _base(folder, DataSet.open(data))
    with _timed(folder, "stage 1"):
        new = [*common, "--checkpoint", str(base), "--from-scratch"]
        first = _trained(folder / "stage1", "unet", str(CONFIGS / "stage1.yaml"), *new)
    with _timed(folder, "stage 2"):
        on = [*common, "--checkpoint", str(first)]
        return _trained(folder / "stage2", "unet", str(CONFIGS / "stage2.yaml"), *on)


def judge(folder: Path, last: Path, output: Path) -> None:
    """Pack the last checkpoint into `output`, see how its lips move, and write that down beside it."""
    syncnet = sorted((folder / "syncnet" / "checkpoints").glob("step-*"))[-1] / "stable_syncnet.pt"
    parameters = pack(last, syncnet, output)
    bundle, acceptance = folder / "bundle", folder / "acceptance.json"
    shutil.rmtree(bundle, ignore_errors=True)
    lsx(
        "export",
        str(tiny_checkpoint(folder / "packed", output)),
        "-o",
        str(bundle),
        "--precision",
        "fp32",
        "--no-build",
    )
    judged = [sys.executable, "-m", "examples.tiny.acceptance", str(bundle), "--report", str(acceptance)]
    with _timed(folder, "acceptance"):
        subprocess.run(judged, check=True)  # noqa: S603
    write_card(folder, output, parameters, json.loads(acceptance.read_text(encoding="utf-8")))


def main() -> None:
    """Train, pack what came of it, with --commit into the repository, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", action="store_true", help="write the result where the repository has it")
    given = parser.parse_args()
    judge(given.folder, make(given.folder), MODEL if given.commit else given.folder / "model")


if __name__ == "__main__":
    main()
