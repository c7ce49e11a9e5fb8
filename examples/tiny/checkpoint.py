"""lsx-tiny as a checkpoint folder: the committed weights, and the audio encoder, whose weights are random by seed."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from lsx.models.checkpoint import read_tensors
from lsx.models.random_checkpoint import data_section, write_whisper
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig

__all__ = ["MODEL", "UNET", "WHISPER_SEED", "new_checkpoint", "pack", "tiny_checkpoint"]

MODEL = Path(__file__).parent / "model"
WHISPER_SEED = 0
RESOLUTION = 128
UNET, _VAE = "latentsync_unet.pt", "diffusion_pytorch_model.safetensors"


def new_checkpoint(folder: Path, vae: Path, model: dict[str, Any]) -> Path:
    """A checkpoint folder to begin with: the VAE in `vae`, a U-Net of `model` with new weights."""
    folder.mkdir(parents=True)
    shutil.copytree(vae, folder / "vae")
    write_whisper(folder / "whisper" / "tiny.pt", WHISPER_SEED)
    section = model | {"use_motion_module": True}
    torch.manual_seed(0)
    unet = UNet3D(UNetConfig.from_mapping(section, "the configuration"))
    torch.save({"global_step": 0, "state_dict": unet.state_dict()}, folder / UNET)
    config = {"data": data_section(RESOLUTION), "model": section}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return folder


def pack(checkpoint: Path, syncnet: Path, output: Path) -> dict[str, float]:
    """Write a trained checkpoint and SyncNet in float16 to `output`, without the audio encoder.

    Returns the millions of parameters of `unet`, `vae` and `syncnet`.
    """
    (output / "vae").mkdir(parents=True, exist_ok=True)
    parameters = {}
    files = {"unet": (checkpoint / UNET, output / UNET), "syncnet": (syncnet, output / STABLE_SYNCNET_FILE)}
    for name, (source, target) in files.items():
        content = read_tensors(source)
        halved = {key: value.half() for key, value in content["state_dict"].items()}
        parameters[name] = _millions(halved)
        torch.save({"global_step": content["global_step"], "state_dict": halved}, target)
    shutil.copyfile(syncnet.with_suffix(".yaml"), (output / STABLE_SYNCNET_FILE).with_suffix(".yaml"))
    shutil.copyfile(checkpoint / "config.yaml", output / "config.yaml")
    shutil.copyfile(checkpoint / "vae" / "config.json", output / "vae" / "config.json")
    halved = {key: value.half() for key, value in load_file(checkpoint / "vae" / _VAE).items()}
    save_file(halved, output / "vae" / _VAE)
    return parameters | {"vae": _millions(halved)}


def _millions(state: dict[str, Any]) -> float:
    return float(sum(value.numel() for value in state.values()) / 1e6)


def tiny_checkpoint(folder: Path, model: Path = MODEL) -> Path:
    """Write lsx-tiny into `folder`, as `lsx export` takes it, and return it."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.md", "training.json"), dirs_exist_ok=True)
    if not (folder / "whisper").exists():
        write_whisper(folder / "whisper" / "tiny.pt", WHISPER_SEED)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    tiny_checkpoint(parser.parse_args().folder)
