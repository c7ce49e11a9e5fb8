"""docs/benchmarks.md from reports of `lsx bench`: python scripts/benchmarks.py REPORT [REPORT ...] > docs/benchmarks.md

Every figure is a report's, below the command that made it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lsx.bench.report import BenchReport, Row, Spread, read_report

_HEAD = """# Benchmarks

Tables by `python scripts/benchmarks.py REPORT ...` from reports of `lsx bench`; what is not from one says how it was
measured. How `lsx bench` measures: [bench.md](bench.md). Accuracy: [accuracy.md](accuracy.md). What
exporting and building take: [costs.md](costs.md). All weights are random
(`lsx checkpoint random`): errors depend on them, times do not.
"""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(head)
    yield ""
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _machine(report: BenchReport) -> str:
    m = report.machine
    libraries = (name for name in ("Python", "onnxruntime", "torch", "tensorrt", "tensorrt-rtx-cu13-libs") if name in m)
    installed = (f"{name} {m[name]}" for name in libraries if m[name][:1].isdigit())
    gpu = "no GPU" if m["GPU"].startswith("none") else f"{m['GPU']}, driver {m['driver']}"
    return ", ".join((report.created[:10], m.get("CPU", ""), m["system"], gpu, f"lsx {report.lsx_version}", *installed))


def _rows(rows: list[Row]) -> Iterator[str]:
    versus = next((row.versus for row in rows if row.versus is not None), None)
    head = ("what", "contender", "median", "quartiles", "rounds", "first run")
    cells = (
        (
            row.what,
            row.contender,
            _seconds(row.seconds.median),
            f"{_seconds(row.seconds.low)} to {_seconds(row.seconds.high)}" if row.seconds.repeats > 1 else "one round",
            str(row.seconds.repeats),
            "" if row.seconds.first is None else _seconds(row.seconds.first),
            _ratio(row.ratio),
        )
        for row in rows
    )
    yield from _table((*head, f"{versus}'s time over it" if versus else ""), cells)


def _section(report: BenchReport) -> Iterator[str]:
    bundle = report.bundle
    yield f"\n## {bundle['model']}, {bundle['resolution']} px, {bundle['precision']}\n"
    yield f"    {report.command}\n"
    yield f"{_machine(report)}\n"
    for section in ("chunk", "graphs"):
        rows = [row for row in report.rows if row.section == section]
        if rows:
            yield from _rows(rows)
    if report.roofline is not None:
        roof = report.roofline
        peak = "" if roof.peak_flops is None else f"{roof.peak_flops / 1e12:.3g} TFLOP/s, "
        yield f"Peaks: {peak}{roof.peak_bytes / 1e9:.3g} GB/s ({roof.how})."
        yield from _table(
            ("graph", "contender", "TFLOP", "TFLOP/s", "of the peak", "GB/s", "of the peak"),
            (
                (
                    r.graph,
                    r.contender,
                    f"{r.flops / 1e12:.4g}",
                    f"{r.flops / r.seconds / 1e12:.3g}",
                    "" if r.flops_share is None else f"{100 * r.flops_share:.0f} %",
                    f"{r.bytes / r.seconds / 1e9:.3g}",
                    f"{100 * r.bytes_share:.0f} %",
                )
                for r in roof.rows
                if r.flops > 0
            ),
        )
    for stages in report.stages:
        shares = (f"{s.name} {100 * s.seconds / stages.seconds:.0f} %" for s in stages.stages)
        yield f"{stages.what}, {stages.contender}, {_seconds(stages.seconds)}: {', '.join(shares)}; engines ran "
        yield f"{100 * stages.device_busy:.0f} % of the time.\n"
    for share in report.host:
        yield f"{share.name}, one core: {_seconds(share.seconds)} a frame.\n"
    for cold in report.cold:
        steps = (f"{s.name} {_seconds(s.seconds)}" for s in cold.steps)
        yield f"Cold start on {cold.contender}: {_seconds(cold.seconds)} ({', '.join(steps)}).\n"
    yield from _runs(report)
    for note in report.notes:
        yield f"- {note}"


def _runs(report: BenchReport) -> Iterator[str]:
    if report.clip is not None:
        c = report.clip
        device = "" if c.peak_device_bytes is None else f", device {c.peak_device_bytes / 2**20:.0f} MiB"
        yield f"{c.video}, {c.frames} frames: {c.seconds_per_second:.3g} s a second of video, first frame after "
        yield f"{_seconds(c.first_frame)}, a chunk {_seconds(c.chunk_p50)} (p95 {_seconds(c.chunk_p95)}, p99 "
        yield f"{_seconds(c.chunk_p99)}), host memory at most {c.peak_host_bytes / 2**20:.0f} MiB{device}.\n"
    if report.long_run is not None:
        run = report.long_run
        end = "which fails" if run.failed else "which passes" if run.judged else "too few chunks to judge"
        yield f"Long run of {run.seconds:.0f} s, {run.frames} frames: host memory {run.host_bytes[-1] / 2**20:.0f} MiB "
        yield f"at the end, growth after the warm-up {100 * run.growth:.2f} %, {end}.\n"
    if report.sweep is not None:
        yield f"Speed against quality, from {report.sweep.reference}:"
        yield from _table(
            ("precision", "sampler", "steps", "cache interval", "a chunk", "error, levels", ""),
            (
                (
                    p.precision,
                    p.sampler,
                    str(p.steps),
                    str(p.cache_interval or "off"),
                    _seconds(p.seconds),
                    f"{p.error:.3f}",
                    "Pareto" if p.pareto else "",
                )
                for p in report.sweep.points
            ),
        )
        yield f"Recommended: {report.sweep.recommendation}.\n"


def main(paths: list[str]) -> None:
    """Print the page."""
    lines = [_HEAD, *(line for path in paths for line in _section(read_report(Path(path))))]
    page = "\n".join(lines).replace(" \n", "\n")
    while "\n\n\n" in page:
        page = page.replace("\n\n\n", "\n\n")
    sys.stdout.write(page.rstrip() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
