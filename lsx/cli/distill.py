"""`lsx distill`: a checkpoint and a data set to students of few steps, or to a small decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from lsx.cli.console import command, counted, emit, out, set_mode, train_extra
from lsx.cli.options import names_of
from lsx.cli.progress import task
from lsx.cli.train import (
    Changes,
    Data,
    DryRun,
    HeldOut,
    Model,
    Output,
    Resume,
    callbacks_of,
    check_data,
    check_output,
    show_plan,
    show_report,
)
from lsx.errors import UsageError

if TYPE_CHECKING:
    from lsx.training.distill_options import DecoderOptions, DistillOptions, FromCheckpoint, Method

__all__ = ["app"]


_FLAGS = ("--json", "--quiet", "-q", "--verbose", "-v")


class _StudentsByDefault(TyperGroup):
    """`lsx distill CHECKPOINT` is `lsx distill students CHECKPOINT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = [word for word in args if word in _FLAGS]  # which may stand before the command
        others = [word for word in args if word not in _FLAGS]
        if not others or others[0] not in (*self.commands, "--help", "-h"):
            others = ["students", *others]
        return super().parse_args(ctx, [others[0], *flags, *others[1:]])


app = typer.Typer(
    cls=_StudentsByDefault,
    help="Distil what is served: students of fewer steps (lsx distill CHECKPOINT ..., see lsx distill students -h), "
    "or a small VAE decoder.",
    no_args_is_help=False,
)


def distill(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder of the teacher.")],
    data: Data,
    output: Output = None,
    steps: Annotated[str, typer.Option(help="Steps of the students, each half of the one before.")] = "8,4,2,1",
    guidance: Annotated[float, typer.Option(help="The teacher's guidance scale, which is folded in.")] = 1.5,
    method: Annotated[
        str, typer.Option(help="progressive, a training for every halving; consistency, one network for all --steps.")
    ] = "progressive",
    config: Annotated[
        Path | None, typer.Option(help="YAML of each stage's training, as lsx train unet takes it.")
    ] = None,
    model: Model = None,
    auxiliary: Annotated[
        Path | None, typer.Option(help="Folder with weights of StableSyncNet, LPIPS and VideoMAE, for pixel losses.")
    ] = None,
    changes: Changes = None,
    resume: Resume = False,
    validation: HeldOut = None,
    dry_run: DryRun = False,
) -> None:
    """Train students that need fewer steps and no guidance."""
    train_extra()
    from lsx.training.distill_options import DistillOptions

    options = DistillOptions(
        checkpoint=checkpoint,
        steps=_numbers("--steps", steps, "8,4,2,1"),
        guidance=guidance,
        method=cast("Method", method),
        config=config,
        changes=tuple(changes or ()),
        model=model,
        auxiliary=auxiliary,
        validation=validation,
    )
    _check_early(options, data, output, resume=resume, dry_run=dry_run)
    _distill(data, output, options, resume=resume, dry_run=dry_run)


def distill_vae(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder whose decoder is learnt from.")],
    data: Data,
    output: Output = None,
    widths: Annotated[
        str | None, typer.Option(help="Channels of its levels, the largest picture first; half of the full one's.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Its layers a block; one less than the full one's.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the training, as lsx train unet takes it.")] = None,
    model: Model = None,
    auxiliary: Annotated[Path | None, typer.Option(help="Folder with LPIPS' weights.")] = None,
    changes: Changes = None,
    resume: Resume = False,
    validation: HeldOut = None,
    dry_run: DryRun = False,
) -> None:
    """Train a small VAE decoder against the full one; the checkpoint is exported like any other."""
    train_extra()
    from lsx.training.distill_options import DecoderOptions

    options = DecoderOptions(
        checkpoint=checkpoint,
        widths=None if widths is None else _numbers("--widths", widths, "64,128,256,256"),
        layers=layers,
        config=config,
        changes=tuple(changes or ()),
        model=model,
        auxiliary=auxiliary,
        validation=validation,
    )
    _check_early(options, data, output, resume=resume, dry_run=dry_run)
    _distill_vae(data, output, options, resume=resume, dry_run=dry_run)


def _check_early(options: FromCheckpoint, data: Path, output: Path | None, *, resume: bool, dry_run: bool) -> None:
    """Refuse what can be refused before anything heavy is imported; one process of several speaks."""
    from lsx.training.run_folder import is_main_process

    if not is_main_process():
        set_mode(json=False, quiet=True, verbose=False)
        return
    options.files()
    options.settings()
    check_data(data)
    check_output(output, resume=resume, dry_run=dry_run)


def _numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    words = names_of(text)
    if not all(word.isdigit() for word in words):
        raise UsageError(f"{option} is {text}; give whole numbers with commas, such as {example}")
    return tuple(int(word) for word in words)


def _distill_vae(data: Path, output: Path | None, options: DecoderOptions, *, resume: bool, dry_run: bool) -> None:
    from lsx.training.distill_decoder import distill_decoder, plan_decoder

    if dry_run or output is None:
        show_plan(*plan_decoder(data, options))
        return
    with task("distill") as work:
        report = distill_decoder(data, output, options, resume=resume, callbacks=callbacks_of(work, "distill"))
    show_report(report)


def _distill(data: Path, output: Path | None, options: DistillOptions, *, resume: bool, dry_run: bool) -> None:
    from lsx.training.distill import distill, plan_distillation

    if dry_run or output is None:
        show_plan(*plan_distillation(data, options))
        return
    with task("distill") as work:
        students = distill(data, output, options, resume=resume, callbacks=callbacks_of(work, "distill"))
    for student in students:
        out.print(f"student of {counted(student.steps, 'step')}: {student.checkpoint}")
    emit(students=[{"steps": student.steps, "checkpoint": str(student.checkpoint)} for student in students])


app.command("students")(command(distill))
app.command("vae")(command(distill_vae))
