"""Train lsx-tiny from nothing: python -m examples.tiny.make FOLDER. What is there already is used again."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml

from examples.commands import lsx, lsx_in_processes
from examples.tiny.card import write_card
from examples.tiny.checkpoint import MODEL, new_checkpoint, pack, tiny_checkpoint
from examples.tiny.dataset import HELD_OUT, fill_tokens, write_dataset
from examples.tiny.decoder import adapt_decoder, estimates
from examples.tiny.vae import new_vae, psnr, scale_latents, sharpen_vae, train_vae
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.vae import write_vae
from lsx.training.feature_store import TokenStore
from lsx.training.shards import DataSet

__all__ = ["CONFIGS", "CORES", "accepted", "keep_tokens", "main", "make", "timed", "training_data"]

CONFIGS = Path(__file__).parent / "configs"
CLIPS, VALIDATION_CLIPS = 500, 24
VAE_STEPS, SHARP_STEPS = 6000, 4000
CORES = 2  # that it is made for: a training's numbers depend on its processes, and sums on threads


@contextmanager
def timed(folder: Path, part: str) -> Iterator[None]:
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
        lsx_in_processes("train", *arguments, "-o", str(folder), *resume, processes=processes)
        (folder / "done").touch()
    return sorted((folder / "checkpoints").glob("step-*"))[-1]


def training_data(folder: Path) -> tuple[Path, Path]:
    """The faces to train on, and those to validate with."""
    detector, data, held_out = folder / "detector", folder / "data", folder / "held-out"
    with timed(folder, "data"):
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
    torch.set_num_threads(1)  # SyncNet and the tokens have the other core
    vae = train_vae(DataSet.open(data), VAE_STEPS)
    sharpen_vae(vae, DataSet.open(data), SHARP_STEPS)
    scale_latents(vae, DataSet.open(data))
    torch.set_num_threads(CORES)
    decibels = round(psnr(vae, DataSet.open(held_out)), 2)
    print(f"VAE: {decibels} dB on faces that it never saw", flush=True)
    report = {"clips": CLIPS, "steps": VAE_STEPS + SHARP_STEPS, "psnr": decibels}
    (folder / "vae.json").write_text(json.dumps(report), encoding="utf-8")
    write_vae(folder / "vae", vae.config, vae.state_dict())


def _model() -> dict[str, Any]:
    section: dict[str, Any] = yaml.safe_load((CONFIGS / "stage1.yaml").read_text(encoding="utf-8"))["model"]
    return section


def _fill_tokens(folder: Path, data: Path) -> None:
    """Keep what the audio encoder makes of the data; it is the same in every checkpoint begun here."""
    begun = folder / "untrained"
    if not begun.exists():
        vae = new_vae()
        write_vae(folder / "untrained-vae", vae.config, vae.state_dict())
        new_checkpoint(begun, folder / "untrained-vae", _model())
    keep_tokens(begun, data)


def keep_tokens(begun: Path, data: Path) -> None:
    """Keep in the data what the audio encoder of the checkpoint makes of it."""
    checkpoint, opened = Checkpoint(CheckpointFiles.in_folder(begun)), DataSet.open(data)
    fill_tokens(opened, TokenStore.of(opened, checkpoint.hashes()["whisper"]), checkpoint.audio_encoder())


def _beside_the_vae(folder: Path, data: Path, common: Sequence[str]) -> None:
    """What one core does while the other trains the VAE, in processes of their own: its random numbers are global."""
    _trained(folder / "syncnet", "syncnet", str(CONFIGS / "syncnet.yaml"), *common, processes=1)
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        pool.submit(_fill_tokens, folder, data).result()


def _adapted(folder: Path, last: Path, data: DataSet) -> Path:
    """The trained checkpoint with a decoder that knows its U-Net."""
    adapted = folder / "adapted"
    with timed(folder, "decoder"):
        if not adapted.exists():
            checkpoint = Checkpoint(CheckpointFiles.in_folder(last))
            vae = adapt_decoder(checkpoint.vae(), estimates(checkpoint, data))
            begun = folder / "adapted.part"
            shutil.rmtree(begun, ignore_errors=True)
            shutil.copytree(last, begun, ignore=lambda _, names: {"vae", "state"} & set(names))
            write_vae(begun / "vae", vae.config, vae.state_dict())
            begun.rename(adapted)
    return adapted


def make(folder: Path) -> Path:
    """Everything under `folder`; returns the finished checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(CORES)
    data, held_out = training_data(folder)
    common = ["--data", str(data), "--validation", str(held_out)]
    with timed(folder, "VAE, SyncNet, tokens"), ThreadPoolExecutor(1) as beside:
        others = beside.submit(_beside_the_vae, folder, data, common)
        _vae(folder, data, held_out)
        others.result()
    if not (base := folder / "base").exists():
        new_checkpoint(base, folder / "vae", _model())
    with timed(folder, "stage 1"):
        new = [*common, "--checkpoint", str(base), "--from-scratch"]
        first = _trained(folder / "stage1", "unet", str(CONFIGS / "stage1.yaml"), *new)
    with timed(folder, "stage 2"):
        on = [*common, "--checkpoint", str(first)]
        last = _trained(folder / "stage2", "unet", str(CONFIGS / "stage2.yaml"), *on)
    return _adapted(folder, last, DataSet.open(data))


def accepted(folder: Path, write: Callable[[Path], Path]) -> dict[str, Any]:
    """Export the checkpoint that `write` writes, and see how its lips move: what `examples.tiny.acceptance` reports."""
    packed, bundle, report = folder / "packed", folder / "bundle", folder / "acceptance.json"
    for made in (packed, bundle):
        shutil.rmtree(made, ignore_errors=True)
    lsx("export", str(write(packed)), "-o", str(bundle), "--precision", "fp32", "--no-build")
    judged = [sys.executable, "-m", "examples.tiny.acceptance", str(bundle), "--report", str(report)]
    with timed(folder, "acceptance"):
        subprocess.run(judged, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def judge(folder: Path, last: Path, output: Path) -> None:
    """Pack the last checkpoint into `output`, see how its lips move, and write that down beside it."""
    syncnet = sorted((folder / "syncnet" / "checkpoints").glob("step-*"))[-1] / "stable_syncnet.pt"
    parameters = pack(last, syncnet, output)
    write_card(folder, output, parameters, accepted(folder, partial(tiny_checkpoint, model=output)))


def main() -> None:
    """Train, pack what came of it, with --commit into the repository, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", action="store_true", help="write the result where the repository has it")
    given = parser.parse_args()
    judge(given.folder, make(given.folder), MODEL if given.commit else given.folder / "model")


if __name__ == "__main__":
    main()
