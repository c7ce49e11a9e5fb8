"""`lsx bench`: backends side by side."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import lsx
from lsx.bundle import Bundle
from lsx.cli.console import err, out
from lsx.cli.options import BundlePath, CacheInterval, Guidance, Provider, Reference, Steps, Threads, sample_options
from lsx.errors import OutputError
from lsx.files import sha256_of
from lsx.manifest import MANIFEST

__all__ = ["bench"]


def bench(
    bundle: BundlePath,
    candidate: Annotated[str, typer.Option(help="Backend to measure.")] = "onnxruntime",
    baseline: Annotated[str, typer.Option(help="Backend to measure it against.")] = "torch",
    reference: Reference = None,
    graphs: Annotated[str | None, typer.Option(help="Graphs, by commas; default all.")] = None,
    call: Annotated[bool, typer.Option(help="Also the whole 16-frame call.")] = True,
    steps: Steps = 4,
    guidance: Guidance = 1.5,
    repeat: Annotated[int, typer.Option(help="Pairs measured of each graph; half as many calls.")] = 5,
    cache_interval: CacheInterval = "3",
    provider: Provider = "cpu",
    video: Annotated[Path | None, typer.Option(help="Also time detection, on the first frame of this video.")] = None,
    threads: Threads = None,
    report: Annotated[Path | None, typer.Option("--report", "-o", help="Also write JSON there.")] = None,
) -> None:
    """Measure a backend against another, in turn in one run: medians, spread, and the ratio pair by pair."""
    from lsx.bench import compare
    from lsx.bench.host import align_and_paste_seconds, detect_seconds
    from lsx.runtime.video import VideoReader

    opened = Bundle.open(bundle)
    if report is not None and not report.parent.is_dir():
        raise OutputError(f"{report.parent}: no such folder. Create it first")
    options = sample_options(steps=steps, guidance=guidance, cache_interval=cache_interval)
    first = None if video is None else next(VideoReader(video).frames(0, 1))
    table = Table("", f"{candidate} ms", "+-", f"{baseline} ms", "+-", "ratio", box=None, pad_edge=False)
    rows = []
    with err.status("loading") as status:
        for row in compare.bench(
            opened,
            candidate=candidate,
            baseline=baseline,
            reference=reference,
            graphs=tuple(graphs.split(",")) if graphs else compare.GRAPHS,
            call=call,
            options=options,
            repeat=repeat,
            threads=threads,
            provider=provider,
            progress=status.update,
        ):
            rows.append(row)
            cells = [f"{1e3 * row.seconds[n]:.1f}" for n in (candidate, baseline)]
            spread = [f"{1e3 * row.spread[n]:.1f}" for n in (candidate, baseline)]
            table.add_row(row.name, cells[0], spread[0], cells[1], spread[1], f"{row.ratio:.2f}x")
        status.update("align and paste")
        pasting = 1 / align_and_paste_seconds(opened.model.resolution, 200)
        detecting = None if first is None else detect_seconds(opened, first)
    out.print(table)
    out.print(f"ratio: {baseline} seconds over {candidate} seconds, median of {repeat} interleaved pairs")
    out.print(f"align and paste, 1080p, brows 200 px apart, one core: {pasting:.0f} frames/s")
    if detecting is not None:
        out.print(f"detection and landmarks, first frame of {video}, one core: {1e3 * detecting:.1f} ms")
    if report is not None:
        content = {
            "lsx": lsx.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "bundle": {
                "model": opened.manifest.model.version,
                "manifest_sha256": sha256_of(bundle / MANIFEST),
            },
            "candidate": candidate,
            "baseline": baseline,
            "rows": [row.as_json() for row in rows],
            "align_and_paste_frames_per_second": pasting,
            "detection_seconds": detecting,
        }
        try:
            report.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{report}: cannot be written: {error.strerror}") from error
        out.print(f"report: {report}")
