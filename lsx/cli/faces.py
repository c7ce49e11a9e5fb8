"""`lsx faces`: who is in a video, and when."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.cli.console import counted, emit, out
from lsx.cli.progress import task
from lsx.cli.report_files import check_report
from lsx.media.regular_files import check_regular

__all__ = ["faces"]

_SHOWN = 40  # tracks in the table


def faces(
    video: Annotated[Path, typer.Argument(help="Video to look into.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of tracks to write: tracks.json.")],
    bundle: Annotated[Path, typer.Option(help="Any bundle: its face models are used.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a PNG with a face of every track and its number.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Frames that are looked at side by side.")] = 1,
) -> None:
    """Find every face of a video and follow it through its shot, for lsx run --faces and --speaker."""
    for target, others in ((output, (video, sheet)), (sheet, (video, output))):
        check_report(target, others)
    opened = Bundle.open(bundle)
    check_regular(video)
    from lsx.faces.detector import opened_detector
    from lsx.media.video_reader import FPS, VideoReader
    from lsx.runtime.face_survey import survey_faces

    reader = VideoReader(video)
    with task("faces") as work, opened_detector(opened) as detector:
        found = survey_faces(
            reader,
            detector,
            opened.manifest.faces.family,
            output,
            sheet,
            threads=threads,
            progress=lambda done: work.update("looking for faces", done, reader.count),
        )
    shots, tracks = counted(found.shots, "shot"), counted(len(found.tracks), "track")
    out.print(f"{video}: {counted(found.frames, 'frame')}, {shots}, {tracks}", markup=False)
    for track in found.tracks[:_SHOWN]:
        seconds = f"{track.first / FPS:.2f} to {(track.last + 1) / FPS:.2f} s"
        out.print(
            f"  {track.id}: shot {track.shot}, {seconds}, in {counted(track.frames, 'frame')}, {track.size:.0f} px, "
            f"sharpness {track.sharpness:.1f}"
        )
    if len(found.tracks) > _SHOWN:
        out.print(f"  and {len(found.tracks) - _SHOWN} more")
    out.print(f"faces: {output}" + ("" if sheet is None else f", {sheet}"), markup=False)
    shown = [f.name for f in fields(found.tracks[0]) if f.name != "portrait"]
    emit(
        video=str(video),
        frames=found.frames,
        shots=found.shots,
        tracks=[{name: getattr(track, name) for name in shown} for track in found.tracks],
        output=str(output),
    )
