"""`lsx distill` as a function: a checkpoint and a data set to students of few steps, a training after another."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsx.core.atomic_files import write_whole
from lsx.errors import OutputError
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import SAMPLING_FILE, CheckpointFiles
from lsx.training.config import UNetSettings
from lsx.training.consistency import ConsistencyStage
from lsx.training.distill_options import DistillOptions
from lsx.training.distill_task import DistillTask, TeacherRecord
from lsx.training.distillation import Stage, halving_stages
from lsx.training.estimate import Estimate, estimate
from lsx.training.process_group import process_group
from lsx.training.reports import last_step
from lsx.training.run_folder import RUN_FILE, STATE_FOLDER, RunFolder, is_main_process
from lsx.training.samples import usable_rows
from lsx.training.shards import DataSet
from lsx.training.train import Callbacks, ValidationOptions, check_same, settings_as_json, validation_clip
from lsx.training.trainer import Trainer
from lsx.training.unet_task import UNetSources, link_files

__all__ = ["Student", "distill", "plan_distillation"]

_STAGES = "stages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """What became of a stage."""

    steps: int
    checkpoint: Path
    """Its folder: a checkpoint in the released format, and sampling.json."""
    losses: Mapping[str, float]
    """The losses of its last step; empty where the stage had ended before."""


def distill(
    data: Path,
    output: Path,
    options: DistillOptions,
    *,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> tuple[Student, ...]:
    """Train the students into `output`: `4-steps` and so on, and the trainings themselves under `stages`.

    resume : go on with what is there. Raises UsageError, CheckpointError, MediaError, OutputError, TrainingFailed;
    Cancelled when interrupted, after saving.
    """
    tell = callbacks or Callbacks()
    teacher, settings, record = _teacher(options)
    asked = {
        "kind": "distillation",
        "data": str(data.absolute()),
        "settings": settings_as_json(settings),
        "begun_with": record.unet_sha256,
        "steps": list(options.steps),
        "method": options.method,
        "guidance": options.guidance,
    }
    _begin(output, asked, tell, resume=resume)
    opened, stages = DataSet.open(data), _stages(options)
    looked_at = validation_clip(ValidationOptions(data=options.validation), opened, settings.resolution)
    students = []
    with process_group():
        for number, stage in enumerate(stages):
            tell.note(f"stage {number + 1} of {len(stages)}: {stage.name}")
            own = replace(settings, seed=settings.seed + number)
            sources = UNetSources(checkpoint=teacher, data=opened, auxiliary=options.auxiliary, validation=looked_at)
            folder = RunFolder(output / _STAGES / stage.name)
            losses = _trained(folder, asked, own, sources, stage, record, tell)
            gc.collect()  # networks and optimiser of the stage, which stand in cycles
            last = folder.checkpoint(_last(own, opened))
            teacher = Checkpoint(CheckpointFiles.in_folder(last), model=options.model)
            for steps in stage.sampled:
                student = _published(last, output / f"{steps}-steps", record, steps)
                students.append(Student(steps=steps, checkpoint=student, losses=losses))
    return tuple(students)


def plan_distillation(data: Path, options: DistillOptions) -> tuple[Estimate, UNetSettings, tuple[str, ...]]:
    """The size of each stage, its settings, and notes. Nothing is written or computed."""
    stages, opened = _stages(options), DataSet.open(data)
    teacher, settings, record = _teacher(options)
    sources = UNetSources(checkpoint=teacher, data=opened, auxiliary=options.auxiliary)
    task = DistillTask(settings, sources, stages[0], record)
    notes = (f"stages, each of these steps: {', '.join(stage.name for stage in stages)}", *task.notes)
    return estimate(task, settings), settings, notes


def _stages(options: DistillOptions) -> list[Stage]:
    return [ConsistencyStage(options.steps)] if options.method == "consistency" else [*halving_stages(options.steps)]


def _teacher(options: DistillOptions) -> tuple[Checkpoint, UNetSettings, TeacherRecord]:
    """The first teacher, the settings of each stage, and what students say of it."""
    files = options.files()
    checkpoint = Checkpoint(files, model=options.model)
    record = TeacherRecord(checkpoint.hashes()["unet"], options.guidance)
    return checkpoint, options.settings(checkpoint.spec.resolution), record


def _begin(output: Path, asked: dict[str, Any], tell: Callbacks, *, resume: bool) -> None:
    """Write down what is asked for, or see that it is what the folder was begun with, or goes further."""
    if resume:
        before = RunFolder(output).asked().get("steps", [])
        further = asked["steps"][: len(before)] == before
        check_same(RunFolder(output), asked | ({"steps": before} if further else {}), tell.note)
    if not is_main_process():
        return
    RunFolder.check(output, resume=resume)
    try:
        (output / _STAGES).mkdir(parents=True, exist_ok=True)
        write_whole(output / RUN_FILE, json.dumps(asked, indent=2, sort_keys=True).encode())
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error


def _last(settings: UNetSettings, data: DataSet) -> int:
    count = len(usable_rows(data, settings.resolution))
    return last_step(settings, count, int(os.environ.get("WORLD_SIZE", "1")))


def _trained(
    folder: RunFolder,
    asked: Mapping[str, Any],
    settings: UNetSettings,
    sources: UNetSources,
    stage: Stage,
    record: TeacherRecord,
    tell: Callbacks,
) -> Mapping[str, float]:
    """Train a stage to its end, from where it was left. Returns its last step's losses, none where it had ended."""
    if folder.checkpoint(_last(settings, sources.data)).is_dir():
        return {}
    begun = folder.latest_state() is not None
    task = DistillTask(settings, sources, stage, record, tell.sounds)
    RunFolder.start(folder.path, asked, resume=(folder.path / RUN_FILE).is_file())
    return Trainer(task, settings, folder, progress=tell.step, note=tell.note).run(resume=begun).losses


def _published(checkpoint: Path, student: Path, record: TeacherRecord, steps: int) -> Path:
    """The checkpoint as that of a student of so many steps; no byte of its networks is copied where links can be."""
    if is_main_process() and not student.is_dir():
        writing = student.with_name(f".{student.name}-writing")
        try:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
            for entry in sorted(checkpoint.iterdir()):
                if entry.name not in (STATE_FOLDER, SAMPLING_FILE):
                    link_files(entry, writing / entry.name)
            record.write(writing, steps)
            writing.rename(student)
        except OSError as error:
            raise OutputError(f"{student}: cannot be written: {error.strerror or error}") from error
    return student
