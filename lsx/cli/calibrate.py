"""`lsx calibrate`: clips to calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lsx.bundle.bundle import Bundle
from lsx.cli.console import err, out, quantize_extra, show_table
from lsx.cli.options import CacheInterval, Guidance, Reference, Seed, Steps, sample_options
from lsx.errors import CalibrationError, UsageError

if TYPE_CHECKING:
    from lsx.calibration.calibrate import Plan

__all__ = ["calibrate"]


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by lsx export; its checkpoint's loop is recorded.")],
    clips: Annotated[list[Path], typer.Option("--clips", help="Videos with sound, or folders; may be repeated.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Calibration folder to write.")] = None,
    calls: Annotated[int, typer.Option(help="U-Net calls whose inputs are recorded.")] = 32,
    steps: Steps = 20,
    guidance: Guidance = 1.5,
    cache_interval: CacheInterval = "3",
    seed: Seed = 0,
    min_face: Annotated[int, typer.Option(help="Lowest height of the face in pixels.")] = 96,
    reference: Reference = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be taken, and write nothing.")] = False,
) -> None:
    """Record what the graphs get in the reference's own loop, on faces from your clips, for INT8 and FP8."""
    quantize_extra()
    from lsx.calibration.calibrate import CONTACT_SHEET, plan_calibration
    from lsx.calibration.calibrate import calibrate as run_calibration
    from lsx.calibration.clips import ClipOptions

    if output is None and not dry_run:
        raise UsageError("-o is missing: say where to write the calibration, or give --dry-run")
    options = sample_options(steps=steps, guidance=guidance, seed=seed, cache_interval=cache_interval)
    clip_options = ClipOptions(min_face=min_face)
    opened = Bundle.open(bundle)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("calibrate", total=1.0)

        def show(what: str, share: float) -> None:
            bar.update(task, description=escape(what), completed=share)

        if dry_run or output is None:
            plan = plan_calibration(
                opened, clips, calls=calls, options=options, clip_options=clip_options, progress=show
            )
        else:
            made = run_calibration(
                opened,
                clips,
                output,
                calls=calls,
                options=options,
                clip_options=clip_options,
                reference=reference,
                progress=show,
                surveyed=_summary,
            )
    if dry_run or output is None:
        _summary(plan)
        if not plan.takes:
            raise CalibrationError("no segment was kept: nothing to calibrate on")
        return
    graphs = sorted({feed.graph for feed in made.manifest.feeds})
    counted = ", ".join(f"{len(made.entries(graph))} of {graph}" for graph in graphs)
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    out.print(f"calibration: {output} (feeds: {counted}; {size / 2**20:.0f} MiB)")
    out.print(f"contact sheet: {output / CONTACT_SHEET}")


def _summary(plan: Plan) -> None:
    """What happened to each file."""
    table = Table("file", "seconds", "segments kept", "face px", "dropped", box=None, pad_edge=False)
    for clip in plan.clips:
        if clip.reason is not None:
            table.add_row(escape(clip.name), "", "0", "", escape(clip.reason))
            continue
        faces = [segment.face for segment in clip.kept]
        sizes = f"{min(faces)}..{max(faces)}" if faces else ""
        dropped = "; ".join(s.reason for s in clip.segments if s.reason is not None)
        table.add_row(
            escape(clip.name),
            f"{clip.seconds:.1f}",
            f"{len(clip.kept)} of {len(clip.segments)}",
            sizes,
            escape(dropped),
        )
    show_table(table)
    kept = sum(len(clip.kept) for clip in plan.clips)
    used = len({(take.clip, take.segment) for take in plan.takes})
    out.print(
        f"kept: {kept} segments, {plan.kept_seconds:.1f} s, of {len(plan.clips)} files; "
        f"{len(plan.takes)} calls are denoised, in {used} segments"
    )
