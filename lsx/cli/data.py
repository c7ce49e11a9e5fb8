"""`lsx data`: data sets for training, made of videos and looked into."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lsx.cli.console import command, emit, out, train_extra
from lsx.cli.progress import task
from lsx.cli.report_files import ReportFiles
from lsx.errors import Cancelled, MediaError, OutputError

__all__ = ["app", "inspect", "prepare"]

app = typer.Typer(help="Data sets for training.", no_args_is_help=False)


@app.callback()
def _root() -> None:
    """Make data sets for training, and look into them."""


@app.command("prepare")
@command
def prepare(
    videos: Annotated[list[Path], typer.Argument(help="Videos with sound, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Data set to write, in place of an older one.")],
    bundle: Annotated[Path, typer.Option(help="Any bundle: its face detector is used.")],
    resolution: Annotated[int, typer.Option(help="Pixels of a side of a stored face.")] = 256,
    quality: Annotated[str, typer.Option(help="lossless, or near: about a seventh of the room.")] = "lossless",
    min_seconds: Annotated[float, typer.Option(help="Shortest segment.")] = 5.0,
    max_seconds: Annotated[float, typer.Option(help="Longest segment, at least twice the shortest.")] = 10.0,
    min_face: Annotated[int, typer.Option(help="Lowest height of the face in pixels.")] = 96,
    max_jump: Annotated[float, typer.Option(help="Furthest move of a face between frames, in heights of it.")] = 0.5,
    max_outside: Annotated[float, typer.Option(help="Largest share of a face outside the picture.")] = 0.1,
    min_sharpness: Annotated[float, typer.Option(help="Lowest sharpness of the face; 0 lets all pass.")] = 4.0,
    syncnet: Annotated[
        Path | None, typer.Option(help="Folder with syncnet_v2.model, to correct the sound's offset.")
    ] = None,
    min_confidence: Annotated[float, typer.Option(help="Lowest confidence of SyncNet.")] = 3.0,
    processes: Annotated[int | None, typer.Option(help="Processes, default one a core.")] = None,
    ray: Annotated[str | None, typer.Option(help="Ray cluster that computes: host:port, or auto.")] = None,
    samples_per_shard: Annotated[int, typer.Option(help="Segments in one tar file.")] = 64,
) -> None:
    """Cut videos into segments with one steady face and its speech, ready to train on. Goes on where it was stopped."""
    train_extra()
    from lsx.training.prepare import PrepareOptions, work_folder
    from lsx.training.prepare import prepare as run_prepare

    options = PrepareOptions(
        bundle=bundle,
        resolution=resolution,
        quality=quality,  # type: ignore[arg-type]  # checked there
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        min_face=min_face,
        max_jump=max_jump,
        max_outside=max_outside,
        min_sharpness=min_sharpness,
        syncnet=syncnet,
        min_confidence=min_confidence,
        processes=processes,
        ray=ray,
        samples_per_shard=samples_per_shard,
    )
    try:
        with task("data prepare") as work:
            report = run_prepare(videos, output, options, lambda what, share: work.update(what, share, 1.0))
    except KeyboardInterrupt:
        kept = work_folder(output)
        if not kept.is_dir():
            raise
        raise Cancelled(f"interrupted; finished videos are kept in {kept}. Run the same command to go on") from None
    for line in report.lines():
        out.print(line, markup=False)
    emit(**asdict(report) | {"output": str(report.output)})


@app.command("inspect")
@command
def inspect(
    data: Annotated[Path, typer.Argument(help="Data set made by lsx data prepare.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for page and contact sheet.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every shard whole, and check it.")] = False,
) -> None:
    """Say what a data set holds, and why pieces were dropped; with -o as a page with histograms and faces."""
    train_extra()
    from lsx.core.atomic_files import write_whole
    from lsx.faces.contact_sheet import png_of
    from lsx.training.data_index import duration
    from lsx.training.data_page import data_html
    from lsx.training.inspection import check_shards, contact_sheet, statistics_of
    from lsx.training.shards import DataSet

    opened = DataSet.open(data)
    files = ReportFiles(output)
    figures = statistics_of(opened)
    info = opened.info
    out.print(f"{data}: {info.resolution} x {info.resolution}, {info.codec}, {figures.shards} shards", markup=False)
    out.print(f"{figures.segments} segments, {duration(figures.seconds)}, of {figures.sources} videos")
    checked = f"of {figures.sync_checked} segments" if figures.sync_checked else "not checked"
    out.print(f"sound offsets: {checked}")
    for kind, count in figures.dropped.items():
        out.print(f"dropped {count}: {kind}", markup=False)
    emit(data=str(data), **asdict(figures))
    if verify:
        with task("data inspect") as work:
            wrong = check_shards(opened, lambda what, share: work.update(what, share, 1.0))
        emit(wrong=wrong)
        if wrong:
            raise MediaError(f"{wrong[0]}{f' (and {len(wrong) - 1} more faults)' if len(wrong) > 1 else ''}")
        out.print("every shard is as it was written")
    if output is not None:
        sheet = png_of(contact_sheet(opened))
        try:
            write_whole(output / "contact_sheet.png", sheet)
        except OSError as error:
            raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
        files.write(json.dumps(asdict(figures), indent=1) + "\n", lambda: data_html(opened, figures, sheet))
        files.say()
