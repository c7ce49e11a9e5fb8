"""`lsx train` as two functions: a configuration, a checkpoint and a data set to checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lsx.bundle.bundle import Bundle
from lsx.core.atomic_files import sha256_of
from lsx.errors import UsageError
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.training.config import Settings, SyncNetSettings, UNetSettings, read_settings
from lsx.training.estimate import Estimate, estimate
from lsx.training.process_group import process_group
from lsx.training.reports import StepReport, TrainReport
from lsx.training.run_folder import RunFolder
from lsx.training.samples import usable_rows
from lsx.training.shards import DataSet
from lsx.training.syncnet_task import SyncNetTask
from lsx.training.trainer import Trainer
from lsx.training.unet_task import UNetSources, UNetTask
from lsx.training.validation import ValidationClip

__all__ = [
    "Callbacks",
    "TrainOptions",
    "ValidationOptions",
    "check_same",
    "plan_training",
    "settings_as_json",
    "train",
    "validation_clip",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationOptions:
    """What is looked at now and then: a segment of a data set, or a clip of its own."""

    data: Path | None = None
    """Data that is not trained on; its first segment is rendered."""
    video: Path | None = None
    audio: Path | None = None
    bundle: Path | None = None
    """The bundle whose face models find the face in `video`."""

    def __post_init__(self) -> None:
        clip = (self.video, self.audio, self.bundle)
        if any(part is not None for part in clip) and None in clip:
            raise UsageError("--validation-video, --validation-audio and --bundle go together; give all three")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """A training, but for the data's folder and the output's."""

    config: Path
    """YAML, the original's or one like it."""
    changes: tuple[str, ...] = ()
    """`section.name=value`, in place of the file's."""
    checkpoint: Path | None = None
    """The weights to begin with: for the U-Net a checkpoint folder, for SyncNet a stable_syncnet.pt."""
    model: str | None = None
    """`latentsync-1.5` or `latentsync-1.6`, where the checkpoint has no config.yaml."""
    auxiliary: Path | None = None
    from_scratch: bool = False
    validation: ValidationOptions = ValidationOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """How a training tells of itself."""

    step: Callable[[StepReport], None] = lambda _: None
    sounds: Callable[[int, int], None] = lambda _done, _total: None
    """Sounds encoded, of how many."""
    note: Callable[[str], None] = lambda _: None


def train(
    kind: str,
    data: Path,
    output: Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> TrainReport:
    """Train the `unet` or the `syncnet` on a data set, into the folder `output`.

    resume : go on with the training that is there. Raises UsageError, CheckpointError, MediaError, OutputError;
    Cancelled when interrupted, after saving.
    """
    tell = callbacks or Callbacks()
    settings = read_settings(cast("Any", kind), options.config, options.changes)
    asked = {
        "kind": kind,
        "data": str(data.absolute()),
        "settings": settings_as_json(settings),
        "begun_with": _begun_with(options),
    }
    if resume:
        check_same(RunFolder(output), asked, tell.note)
    task = _task(settings, data, options, tell)
    folder = RunFolder.start(output, asked, resume=resume)
    with process_group():
        return Trainer(task, settings, folder, progress=tell.step, note=tell.note).run(resume=resume)


def plan_training(kind: str, data: Path, options: TrainOptions) -> tuple[Estimate, Settings, tuple[str, ...]]:
    """What `train` would do: its size, its settings, and its notes. Nothing is written or computed."""
    settings = read_settings(cast("Any", kind), options.config, options.changes)
    task = _task(settings, data, options, Callbacks())
    return estimate(task, settings), settings, task.notes


def _task(settings: Settings, data: Path, options: TrainOptions, tell: Callbacks) -> UNetTask | SyncNetTask:
    opened = DataSet.open(data)
    if isinstance(settings, SyncNetSettings):
        held_out = None if options.validation.data is None else DataSet.open(options.validation.data)
        return SyncNetTask(settings, opened, weights=options.checkpoint, held_out=held_out)
    if options.checkpoint is None:
        raise UsageError("--checkpoint is missing: VAE, audio encoder and mask come from a checkpoint folder")
    checkpoint = Checkpoint(CheckpointFiles.in_folder(options.checkpoint), model=options.model)
    sources = UNetSources(
        checkpoint=checkpoint,
        data=opened,
        auxiliary=options.auxiliary,
        from_scratch=options.from_scratch,
        validation=validation_clip(options.validation, opened, settings.resolution),
    )
    return UNetTask(cast("UNetSettings", settings), sources, tell.sounds)


def validation_clip(options: ValidationOptions, data: DataSet, resolution: int) -> ValidationClip:
    """The clip that a training's checkpoints are looked at with. Raises UsageError, MediaError, BundleError."""
    if options.video is not None and options.audio is not None and options.bundle is not None:
        return ValidationClip.of_files(options.video, options.audio, Bundle.open(options.bundle))
    held_out = data if options.data is None else DataSet.open(options.data)
    return ValidationClip.of_segment(held_out, usable_rows(held_out, resolution)[0])


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """The settings for run.json."""
    return {name: getattr(settings, name) for name in type(settings).__dataclass_fields__}


def _begun_with(options: TrainOptions) -> str | None:
    file = options.checkpoint
    if file is None or options.from_scratch:
        return None
    file = file / "latentsync_unet.pt" if file.is_dir() else file
    return sha256_of(file) if file.is_file() else None


_MAY_CHANGE = {
    "max_train_steps",
    "max_train_epochs",
    "save_steps",
    "validation_steps",
    "keep_states",
    "workers",
    "max_skipped_steps",
    "lr",
    "mixed_precision",
    "inference_steps",
    "num_val_samples",
    "guidance",
}


def check_same(folder: RunFolder, asked: dict[str, Any], note: Callable[[str], None]) -> None:
    """Refuse to go on with what `folder` was not begun with: another network, other samples. Tell of what else differs.

    Raises UsageError.
    """
    before = folder.asked()
    old, new = before.get("settings", {}), asked["settings"]
    differing = [name for name in new if name in old and old[name] != _through_json(new[name])]
    refused = [name for name in differing if name not in _MAY_CHANGE]
    refused += [name for name in asked if name not in ("settings", "data") and before.get(name) != asked[name]]
    if refused:
        raise UsageError(
            f"{folder.path}: was begun with another {', '.join(refused)}. Give what it was begun with, or another -o"
        )
    for name in differing:
        note(f"{name} is {new[name]} from here on; it was {old[name]}")


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
