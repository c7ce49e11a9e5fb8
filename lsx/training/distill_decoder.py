"""`lsx distill vae` as a function: a checkpoint and a data set to the same checkpoint with a small decoder."""

from __future__ import annotations

from pathlib import Path

from lsx.models.checkpoint import Checkpoint
from lsx.training.config import UNetSettings
from lsx.training.decoder_task import DecoderTask, small_config
from lsx.training.distill_options import DecoderOptions
from lsx.training.estimate import Estimate, estimate
from lsx.training.process_group import process_group
from lsx.training.reports import TrainReport
from lsx.training.run_folder import RunFolder
from lsx.training.shards import DataSet
from lsx.training.train import Callbacks, check_same, settings_as_json
from lsx.training.trainer import Trainer
from lsx.training.unet_task import UNetSources

__all__ = ["distill_decoder", "plan_decoder"]


def distill_decoder(
    data: Path,
    output: Path,
    options: DecoderOptions,
    *,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> TrainReport:
    """Train the decoder on a data set, into the folder `output`; its checkpoints are whole, with all other parts.

    resume : go on with the training that is there. Raises UsageError, CheckpointError, MediaError, OutputError,
    TrainingFailed; Cancelled when interrupted, after saving.
    """
    tell = callbacks or Callbacks()
    task, settings, asked = _prepared(data, options, tell)
    if resume:
        check_same(RunFolder(output), asked, tell.note)
    folder = RunFolder.start(output, asked, resume=resume)
    with process_group():
        report = Trainer(task, settings, folder, progress=tell.step, note=tell.note).run(resume=resume)
    if task.psnr is not None:
        held_out = "frames that it never saw" if options.validation is not None else "the training's own frames"
        tell.note(f"{task.psnr:.2f} dB of PSNR where the model paints, against the full decoder, on {held_out}")
    return report


def plan_decoder(data: Path, options: DecoderOptions) -> tuple[Estimate, UNetSettings, tuple[str, ...]]:
    """The size of the training, its settings, and notes. Nothing is written or computed."""
    task, settings, _ = _prepared(data, options, Callbacks())
    return estimate(task, settings), settings, task.notes


def _prepared(
    data: Path, options: DecoderOptions, tell: Callbacks
) -> tuple[DecoderTask, UNetSettings, dict[str, object]]:
    """The task, its settings, and what run.json says of it."""
    checkpoint = Checkpoint(options.files(), model=options.model)
    settings = options.settings(checkpoint.spec.resolution)
    config = small_config(checkpoint.vae_config, options.widths, options.layers)
    sources = UNetSources(checkpoint=checkpoint, data=DataSet.open(data), auxiliary=options.auxiliary)
    held_out = None if options.validation is None else DataSet.open(options.validation)
    task = DecoderTask(settings, sources, config, held_out=held_out, progress=tell.sounds)
    asked: dict[str, object] = {
        "kind": "decoder",
        "data": str(data.absolute()),
        "settings": settings_as_json(settings),
        "begun_with": task.hashes,
        "decoder": [list(config.decoder_widths), config.decoder_layers],
    }
    return task, settings, asked
