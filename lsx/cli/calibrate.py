"""`lsx calibrate`: clips to calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lsx.bundle.bundle import Bundle
from lsx.bundle.sampling import sampling_of
from lsx.cli.console import emit, out, quantize_extra, show_table
from lsx.cli.options import CacheInterval, CheckpointDir, Guidance, Seed, Steps, check_checkpoint, sampling_keywords
from lsx.cli.progress import task
from lsx.errors import CalibrationError, UsageError

if TYPE_CHECKING:
    from lsx.calibration.calibrate import CalibrationPlan

__all__ = ["calibrate"]


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by lsx export; its checkpoint's loop is recorded.")],
    clips: Annotated[list[Path], typer.Option("--clips", help="Videos with sound, or folders; may be repeated.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Calibration folder to write.")] = None,
    samples: Annotated[int, typer.Option(help="U-Net forwards whose inputs are recorded.")] = 32,
    steps: Steps = None,
    guidance: Guidance = None,
    cache_interval: CacheInterval = None,
    seed: Seed = 0,
    min_face: Annotated[int, typer.Option(help="Lowest height of the face in pixels.")] = 96,
    checkpoint_dir: CheckpointDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be taken, and write nothing.")] = False,
) -> None:
    """Record what the graphs get in the reference's own loop, on faces from your clips, for INT8 and FP8."""
    quantize_extra()
    from lsx.calibration.calibrate import CONTACT_SHEET, CalibrationOptions, plan_calibration
    from lsx.calibration.calibrate import calibrate as run_calibration
    from lsx.calibration.clips import ClipOptions

    if output is None and not dry_run:
        raise UsageError("-o is missing: say where to write the calibration, or give --dry-run")
    chosen = sampling_keywords(steps=steps, guidance=guidance, seed=seed, cache_interval=cache_interval)
    settings = CalibrationOptions(samples=samples, clips=ClipOptions(min_face=min_face), checkpoint_dir=checkpoint_dir)
    opened = Bundle.open(bundle)
    options = sampling_of(opened, None, chosen, "options")
    if not dry_run:
        check_checkpoint(opened, checkpoint_dir)
    with task("calibrate") as work:

        def show(label: str, share: float) -> None:
            work.update(label, share, 1.0)

        if dry_run or output is None:
            plan = plan_calibration(opened, clips, settings, options=options, progress=show)
        else:
            calibration = run_calibration(
                opened,
                clips,
                output,
                settings,
                options=options,
                progress=show,
                surveyed=_summary,
            )
    if dry_run or output is None:
        _summary(plan)
        if not plan.captures:
            raise CalibrationError("no segment was kept: nothing to calibrate on")
        return
    graphs = sorted({feed.graph for feed in calibration.manifest.feeds})
    counted = ", ".join(f"{len(calibration.entries(graph))} of {graph}" for graph in graphs)
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    out.print(f"calibration: {output} (samples: {counted}; {size / 2**20:.0f} MiB)")
    out.print(f"contact sheet: {output / CONTACT_SHEET}")
    emit(
        calibration=str(output),
        samples={graph: len(calibration.entries(graph)) for graph in graphs},
        bytes=size,
        contact_sheet=str(output / CONTACT_SHEET),
    )


def _summary(plan: CalibrationPlan) -> None:
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
    segments = sum(len(clip.kept) for clip in plan.clips)
    emit(
        clips=[
            {"name": c.name, "dropped": c.reason, "segments": len(c.segments), "kept": len(c.kept)} for c in plan.clips
        ],
        kept_seconds=plan.kept_seconds,
    )
    used = len({(capture.clip, capture.segment) for capture in plan.captures})
    out.print(
        f"kept: {segments} segments, {plan.kept_seconds:.1f} s, of {len(plan.clips)} files; "
        f"{len(plan.captures)} chunks are denoised, in {used} segments"
    )
