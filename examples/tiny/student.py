"""lsx-tiny's committed student as a checkpoint folder: stored is what its U-Net adds to the teacher's, in 8 bits."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.tiny.checkpoint import MODEL, UNET, tiny_checkpoint
from lsx.models.checkpoint import read_tensors
from lsx.models.checkpoint_files import SAMPLING_FILE

__all__ = ["KEPT", "STUDENT", "pack_student", "student_checkpoint"]

STUDENT = Path(__file__).parent / "student"
KEPT = 4
"""Steps of the student that the repository has."""
_DIFFERENCE, _SCALE = "difference.safetensors", ".scale"
_LEVELS = 127


def pack_student(student: Path, output: Path = STUDENT, teacher: Path = MODEL) -> None:
    """Write to `output` how the student's U-Net differs from the teacher's, and how it is sampled."""
    before, after = _weights(teacher), _weights(student)
    stored: dict[str, Tensor] = {}
    for key, weights in before.items():
        change = (after[key] - weights).reshape(len(weights), -1)
        scale = change.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _LEVELS
        stored[key] = (change / scale).round().to(torch.int8).view_as(weights)
        stored[key + _SCALE] = scale.squeeze(1)
    output.mkdir(parents=True, exist_ok=True)
    save_file(stored, output / _DIFFERENCE)
    shutil.copyfile(student / SAMPLING_FILE, output / SAMPLING_FILE)


def student_checkpoint(folder: Path, packed: Path = STUDENT, teacher: Path = MODEL) -> Path:
    """Write the student into `folder`, as `lsx export` takes it, and return it.

    Raises ValueError where `packed` is the difference from another teacher.
    """
    made_of = json.loads((packed / SAMPLING_FILE).read_text(encoding="utf-8"))["teacher"]
    if hashlib.sha256((teacher / UNET).read_bytes()).hexdigest() != made_of:
        raise ValueError(f"{packed}: the student of another teacher than {teacher}; run make distill-tiny")
    tiny_checkpoint(folder, teacher)
    stored, state = load_file(packed / _DIFFERENCE), {}
    for key, weights in _weights(teacher).items():
        change = stored[key].reshape(len(weights), -1) * stored[key + _SCALE].unsqueeze(1)
        state[key] = weights + change.view_as(weights)
    torch.save({"global_step": read_tensors(teacher / UNET)["global_step"], "state_dict": state}, folder / UNET)
    shutil.copyfile(packed / SAMPLING_FILE, folder / SAMPLING_FILE)
    return folder


def _weights(folder: Path) -> dict[str, Tensor]:
    return {key: value.float() for key, value in read_tensors(folder / UNET)["state_dict"].items()}
