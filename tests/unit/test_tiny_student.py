"""lsx-tiny's student: stored in 8 bits, put together again, and of the teacher that the repository has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from examples.tiny.checkpoint import MODEL, UNET
from examples.tiny.student import STUDENT, pack_student, student_checkpoint
from lsx.bundle.manifest import StudentEntry
from lsx.models.checkpoint import Checkpoint, read_tensors
from lsx.models.checkpoint_files import SAMPLING_FILE, CheckpointFiles


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    folder.mkdir()
    state = {"a.weight": torch.randn(6, 4, 3, 3), "a.bias": torch.randn(6), "pe": torch.randn(1, 5, 4)}
    halved = {key: value.half() for key, value in state.items()}
    torch.save({"global_step": 7, "state_dict": halved}, folder / UNET)
    (folder / "config.yaml").write_text("model: {}\n")
    return folder


def made_of(teacher: Path, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A student whose every row changed by as much as its number."""
    folder.mkdir()
    state = {}
    for key, weights in read_tensors(teacher / UNET)["state_dict"].items():
        rows = torch.arange(len(weights)).view(-1, *(1,) * (weights.dim() - 1)).float()
        state[key] = weights.float() + 1e-3 * rows * torch.randn(weights.shape)
    torch.save({"global_step": 9, "state_dict": state}, folder / UNET)
    sha256 = hashlib.sha256((teacher / UNET).read_bytes()).hexdigest()
    (folder / SAMPLING_FILE).write_text(json.dumps({"teacher": sha256, "steps": 4}))
    return folder, state


def test_a_student_is_put_together_to_half_a_level(teacher: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    student, state = made_of(teacher, tmp_path / "student")
    pack_student(student, tmp_path / "packed", teacher)
    again = student_checkpoint(tmp_path / "again", tmp_path / "packed", teacher)
    before, found = (read_tensors(folder / UNET)["state_dict"] for folder in (teacher, again))
    for key, wanted in state.items():
        change = (wanted - before[key].float()).reshape(len(wanted), -1)
        error = (found[key] - wanted).reshape(len(wanted), -1).abs()
        assert (error <= change.abs().amax(1, keepdim=True) / 254 + 1e-6).all()  # of its own row
    assert json.loads((again / SAMPLING_FILE).read_text())["steps"] == 4


def test_the_student_of_another_teacher_is_not_put_together(teacher: Path, tmp_path: Path) -> None:
    student, _ = made_of(teacher, tmp_path / "student")
    pack_student(student, tmp_path / "packed", teacher)
    with pytest.raises(ValueError, match="of another teacher"):
        student_checkpoint(tmp_path / "again", tmp_path / "packed", MODEL)


def test_the_committed_student_is_the_committed_models(tmp_path: Path) -> None:
    assert sum(file.stat().st_size for file in STUDENT.iterdir()) < 6e6
    checkpoint = Checkpoint(CheckpointFiles.in_folder(student_checkpoint(tmp_path / "student")))
    checkpoint.check()
    entry = StudentEntry.model_validate_json((STUDENT / SAMPLING_FILE).read_text())
    assert (entry.steps, entry.timesteps, entry.guidance) == (4, (999, 749, 499, 249), 1.0)
