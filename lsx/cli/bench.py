"""`lsx bench`: a bundle against what its user has today."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.bundle.sampling import sampling_of
from lsx.cli.bench_tables import show_changes, show_report
from lsx.cli.console import emit
from lsx.cli.options import (
    CacheInterval,
    CheckpointDir,
    Guidance,
    Provider,
    SamplerName,
    Threads,
    TrustCode,
    check_clip,
    names_of,
    sampling_keywords,
)
from lsx.cli.progress import task
from lsx.cli.report_files import ReportFiles
from lsx.errors import BenchFailed, UsageError

__all__ = ["bench", "parse_duration"]

_DEVICE_STEPS, _HOST_STEPS = 20, 3  # with DeepCache 3 are 1 full and 2 shallow, nearly the mix of 20: 7 and 13


def bench(
    context: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(help="Bundle made by lsx export; with --compare also a report, and nothing is measured.")
    ],
    checkpoint_dir: CheckpointDir = None,
    backends: Annotated[str | None, typer.Option(help="lsx's backends, by commas; default all that run here.")] = None,
    sections: Annotated[
        str, typer.Option(help="graphs, chunk, cold, by commas; clip, long run and sweep have options of their own.")
    ] = "graphs,chunk,cold",
    graphs: Annotated[str | None, typer.Option(help="Graphs, by commas; default all.")] = None,
    clip: Annotated[tuple[Path, Path] | None, typer.Option(help="Also run this video with this sound.")] = None,
    avatar: Annotated[
        bool, typer.Option("--avatar", help="Also run the clip over a prepared avatar, in turn with the video itself.")
    ] = False,
    clients: Annotated[
        int | None, typer.Option(help="Also the clip for 1, 2, 4, ... so many clients at once on one set of engines.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Also an avatar of the clip that speaks live: from sound to first picture.")
    ] = False,
    duration: Annotated[
        str | None, typer.Option(help="Also stream synthetic frames so long, such as 90s, 10m, 1h, and watch memory.")
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Also speed against quality over many settings."),
    ] = False,
    truth: Annotated[
        Path | None, typer.Option(help="The clip's video as it ought to become: the sweep tells each setting's lips.")
    ] = None,
    auxiliary: Annotated[
        Path | None,
        typer.Option(help="Folder with stable_syncnet.pt, which judges the clip at each setting."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also where each graph's time goes on a CPU, operator by operator.")
    ] = False,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="A bundle of the same checkpoint in another precision, of its student or its teacher, measured too; "
            "may be repeated."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Precisions of all these, by commas, also of the fallback; default all but the fallback's."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps; default 20, and 3 on a CPU, where a chunk takes long.")
    ] = None,
    guidance: Guidance = None,
    cache_interval: CacheInterval = None,
    sampler: SamplerName = None,
    repeat: Annotated[
        int | None, typer.Option(help="Rounds; default as many as fit into 6 s a graph and a minute of chunks.")
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile as a baseline; default on a GPU."),
    ] = None,
    price_per_hour: Annotated[float | None, typer.Option(help="Gives the cost per minute of video.")] = None,
    provider: Provider = "cpu",
    threads: Threads = None,
    trust_code: TrustCode = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.json and report.html.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="Earlier report.json: fail when slower.")] = None,
    threshold: Annotated[float, typer.Option(help="Percent slower that --compare lets pass.")] = 10.0,
) -> None:
    """Measure a bundle on this machine, in turn with PyTorch as its users run it: ratios, stages, roofline, memory."""
    from lsx.bench.bench import bench as run_bench
    from lsx.bench.html import bench_html
    from lsx.bench.options import BenchOptions
    from lsx.bench.report import REPORT, BenchReport, read_report
    from lsx.bench.workloads import runnable_backends
    from lsx.core.graph_names import MODEL_GRAPHS

    if not threshold >= 0:
        raise UsageError(f"--threshold is {threshold:g}; give percent, from 0 on")
    earlier = None if compare is None else read_report(compare)
    if earlier is not None and (bundle.is_file() or (bundle / REPORT).is_file()):
        show_changes(earlier, read_report(bundle), threshold / 100)
        return
    opened = Bundle.open(bundle)
    settings = BenchOptions(
        sections=names_of(sections),
        backends=names_of(backends),
        graphs=names_of(graphs) or MODEL_GRAPHS,
        beside=tuple(beside or ()),
        precisions=names_of(precision),
        clip=clip,
        avatar=avatar,
        clients=clients,
        live=live,
        duration=None if duration is None else parse_duration(duration),
        sweep=sweep,
        truth=truth,
        auxiliary=auxiliary,
        profile=profile,
        compiled=compiled,
        repeat=repeat,
        price_per_hour=price_per_hour,
        provider=provider,
        threads=threads,
        trust_code=trust_code,
    )
    check_clip(clip, truth)
    files = ReportFiles(output)
    if steps is None and opened.manifest.student is None:
        chosen = settings.backends or runnable_backends(opened)
        on_device = provider == "cuda" or any(name.startswith("tensorrt") for name in chosen)
        steps = _DEVICE_STEPS if on_device else _HOST_STEPS
    given = sampling_keywords(steps=steps, guidance=guidance, cache_interval=cache_interval, sampler=sampler)
    options = sampling_of(opened, None, given, "options")
    command = shlex.join(("lsx", *context.obj))

    def write(made: BenchReport) -> None:
        report = made.model_copy(update={"command": command})
        files.write(report.text(), lambda: bench_html(report))

    with task("bench") as progress:
        report = run_bench(
            opened,
            checkpoint_dir=checkpoint_dir,
            options=options,
            settings=settings,
            progress=progress.update,
            save=write,
        )
    write(report)
    emit(**report.model_copy(update={"command": command}).model_dump(mode="json"))
    show_report(report)
    files.say()
    if earlier is not None:
        show_changes(earlier, report, threshold / 100)
    different = [str(row.clients) for row in report.clients if not row.same]
    if different:
        raise BenchFailed(f"with {', '.join(different)} clients at once a result is not that of a run alone")
    if report.long_run is not None and report.long_run.failed:
        raise BenchFailed(f"memory grew by {100 * report.long_run.growth:.1f} % after the warm-up; 1 % is allowed")


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h`, `45`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if match is None:
        raise UsageError(f"--duration is {text}; give a time such as 90s, 10m, 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
