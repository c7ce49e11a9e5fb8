"""`lsx train`: a configuration and a data set to checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from lsx.cli.console import command, emit, out, set_mode, show_table, train_extra
from lsx.cli.progress import Task, task
from lsx.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from lsx.training.config import Settings
    from lsx.training.estimate import Estimate
    from lsx.training.reports import StepReport, TrainReport
    from lsx.training.train import Callbacks, TrainOptions

__all__ = [
    "Changes",
    "Data",
    "DryRun",
    "HeldOut",
    "Model",
    "Output",
    "Resume",
    "app",
    "callbacks_of",
    "check_data",
    "check_output",
    "show_plan",
    "show_report",
]

app = typer.Typer(help="Train LatentSync's networks on a data set.", no_args_is_help=False)

Config = Annotated[Path, typer.Argument(help="YAML; the original's files are read as they are.")]
Data = Annotated[Path, typer.Option("--data", help="Data set made by lsx data prepare.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the training.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="section.name=value in place of the file's; may be repeated.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the training that is in -o.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show parameters, memory and steps; write nothing.")]
Model = Annotated[
    str | None, typer.Option(help="latentsync-1.5 or latentsync-1.6, where the checkpoint has no config.yaml.")
]
HeldOut = Annotated[Path | None, typer.Option("--validation", help="Data set that is not trained on.")]


def train_unet(
    config: Config,
    data: Data,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder: VAE, audio encoder, mask, U-Net to begin with.")],
    output: Output = None,
    model: Model = None,
    auxiliary: Annotated[
        Path | None, typer.Option(help="Folder with weights of StableSyncNet, LPIPS and VideoMAE, those there are.")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Begin with new weights.")] = False,
    changes: Changes = None,
    resume: Resume = False,
    validation: HeldOut = None,
    validation_video: Annotated[Path | None, typer.Option(help="Clip to render instead of a segment.")] = None,
    validation_audio: Annotated[Path | None, typer.Option(help="Its sound.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle whose face models find its face.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Train the U-Net: stage 1, stage 2, or the efficient stage 2, as the configuration says."""
    _check_early("unet", config, changes, data, output, checkpoint, resume=resume, dry_run=dry_run)
    from lsx.training.train import TrainOptions, ValidationOptions

    looked_at = ValidationOptions(data=validation, video=validation_video, audio=validation_audio, bundle=bundle)
    options = TrainOptions(
        config=config,
        changes=tuple(changes or ()),
        checkpoint=checkpoint,
        model=model,
        auxiliary=auxiliary,
        from_scratch=from_scratch,
        validation=looked_at,
    )
    _train("unet", data, output, options, resume=resume, dry_run=dry_run)


def train_syncnet(
    config: Config,
    data: Data,
    output: Output = None,
    checkpoint: Annotated[Path | None, typer.Option(help="stable_syncnet.pt to begin with.")] = None,
    changes: Changes = None,
    resume: Resume = False,
    validation: HeldOut = None,
    dry_run: DryRun = False,
) -> None:
    """Train StableSyncNet, which judges whether lips and sound belong together."""
    _check_early("syncnet", config, changes, data, output, checkpoint, resume=resume, dry_run=dry_run)
    from lsx.training.train import TrainOptions, ValidationOptions

    options = TrainOptions(
        config=config,
        changes=tuple(changes or ()),
        checkpoint=checkpoint,
        validation=ValidationOptions(data=validation),
    )
    _train("syncnet", data, output, options, resume=resume, dry_run=dry_run)


def _check_early(
    kind: Literal["unet", "syncnet"],
    config: Path,
    changes: list[str] | None,
    data: Path,
    output: Path | None,
    checkpoint: Path | None,
    *,
    resume: bool,
    dry_run: bool,
) -> None:
    """Refuse what can be refused before anything heavy is imported."""
    train_extra()
    from lsx.models.checkpoint_files import CheckpointFiles
    from lsx.training.config import read_settings
    from lsx.training.run_folder import is_main_process

    if not is_main_process():
        set_mode(json=False, quiet=True, verbose=False)
        return
    read_settings(kind, config, changes or ())
    check_data(data)
    if checkpoint is not None and kind == "unet":
        CheckpointFiles.in_folder(checkpoint)
    elif checkpoint is not None and not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint}: no such file. Give a stable_syncnet.pt, or leave --checkpoint out")
    check_output(output, resume=resume, dry_run=dry_run)


def check_data(data: Path) -> None:
    """Refuse a data set that is not there. Raises UsageError."""
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder. Make a data set: lsx data prepare VIDEOS -o {data}")


def check_output(output: Path | None, *, resume: bool, dry_run: bool) -> None:
    """Refuse a folder in which no training can begin or go on. Raises UsageError, OutputError."""
    from lsx.training.run_folder import RunFolder

    if output is not None and not dry_run:
        RunFolder.check(output, resume=resume)
    elif not dry_run:
        raise UsageError("-o is missing: say where the training goes, or give --dry-run")


def _train(kind: str, data: Path, output: Path | None, options: TrainOptions, *, resume: bool, dry_run: bool) -> None:
    from lsx.training.train import plan_training, train

    if dry_run or output is None:
        show_plan(*plan_training(kind, data, options))
        return
    with task("train") as work:
        report = train(kind, data, output, options, resume=resume, callbacks=callbacks_of(work, "train"))
    show_report(report)


def callbacks_of(work: Task, label: str) -> Callbacks:
    """How a training tells of itself on the terminal. label : of its steps."""
    from lsx.training.train import Callbacks

    return Callbacks(
        step=lambda report: work.update(label, report.step, report.steps, _step_line(report)),
        sounds=lambda done, total: work.update("encode the data", done, total),
        note=lambda line: _tell_line(work, line),
    )


def _tell_line(work: Task, line: str) -> None:
    """Show a line of a training above its progress, and in it."""
    work.update(line)
    out.print(escape(line))


def _step_line(report: StepReport) -> str:
    """Loss, time and memory of a step, in a line."""
    left = int(report.seconds_left)
    skipped = f", {report.skipped} skipped" if report.skipped else ""
    return (
        f"step {report.step}/{report.steps}, loss {report.losses['total']:.4f}, {report.seconds:.2f} s a step, "
        f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left, {report.memory / 2**30:.1f} GiB{skipped}"
    )


def show_report(report: TrainReport) -> None:
    """What a training came to."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
    skipped = f", {report.skipped} skipped" if report.skipped else ""
    out.print(f"trained: {report.steps} steps{skipped}{f' ({losses})' if losses else ''}")
    out.print(f"checkpoint: {report.checkpoint}")
    emit(steps=report.steps, skipped=report.skipped, checkpoint=str(report.checkpoint), losses=dict(report.losses))


def show_plan(plan: Estimate, settings: Settings, notes: Sequence[str]) -> None:
    """What --dry-run tells of a training."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "trained parameters": f"{plan.trained:,} of {plan.parameters:,}",
        "memory": f"{plan.memory / 2**30:.2f} GiB: weights {plan.weight_bytes / 2**30:.2f}, gradients and optimiser "
        f"{plan.optimizer_bytes / 2**30:.2f}, activations {plan.activation_bytes / 2**30:.2f}",
        "steps": f"{plan.steps:,}, {plan.steps_an_epoch:,} an epoch",
        "batch": f"{settings.batch_size} x {settings.gradient_accumulation_steps}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    for line in notes:
        out.print(escape(line))
    show_table(table)
    emit(
        trained=plan.trained,
        parameters=plan.parameters,
        memory_bytes=plan.memory,
        steps=plan.steps,
        steps_an_epoch=plan.steps_an_epoch,
        notes=list(notes),
    )


app.command("unet")(command(train_unet))
app.command("syncnet")(command(train_syncnet))
