"""`lsx distill`: a checkpoint and a data set to students of few steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lsx.cli.console import counted, emit, out, set_mode, train_extra
from lsx.cli.options import names_of
from lsx.cli.progress import task
from lsx.cli.train import (
    Changes,
    Data,
    DryRun,
    HeldOut,
    Output,
    Resume,
    check_data,
    check_output,
    show_plan,
    step_line,
    tell_line,
)
from lsx.errors import UsageError

if TYPE_CHECKING:
    from lsx.training.distill_options import DistillOptions, Method

__all__ = ["distill"]


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
    model: Annotated[
        str | None, typer.Option(help="latentsync-1.5 or latentsync-1.6, where the checkpoint has no config.yaml.")
    ] = None,
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
    from lsx.training.run_folder import is_main_process

    options = DistillOptions(
        checkpoint=checkpoint,
        steps=_steps(steps),
        guidance=guidance,
        method=cast("Method", method),
        config=config,
        changes=tuple(changes or ()),
        model=model,
        auxiliary=auxiliary,
        validation=validation,
    )
    if is_main_process():
        options.files()
        options.settings()
        check_data(data)
        check_output(output, resume=resume, dry_run=dry_run)
    else:
        set_mode(json=False, quiet=True, verbose=False)
    _distill(data, output, options, resume=resume, dry_run=dry_run)


def _steps(text: str) -> tuple[int, ...]:
    words = names_of(text)
    if not all(word.isdigit() for word in words):
        raise UsageError(f"--steps is {text}; give whole numbers with commas, such as 8,4,2,1")
    return tuple(int(word) for word in words)


def _distill(data: Path, output: Path | None, options: DistillOptions, *, resume: bool, dry_run: bool) -> None:
    from lsx.training.distill import distill, plan_distillation
    from lsx.training.train import Callbacks

    if dry_run or output is None:
        show_plan(*plan_distillation(data, options))
        return
    with task("distill") as work:
        callbacks = Callbacks(
            step=lambda report: work.update("distill", report.step, report.steps, step_line(report)),
            sounds=lambda done, total: work.update("encode the data", done, total),
            note=lambda line: tell_line(work, line),
        )
        students = distill(data, output, options, resume=resume, callbacks=callbacks)
    for student in students:
        out.print(f"student of {counted(student.steps, 'step')}: {student.checkpoint}")
    emit(students=[{"steps": student.steps, "checkpoint": str(student.checkpoint)} for student in students])
