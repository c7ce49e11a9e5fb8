"""A bench's report on the terminal, and the change from one to another."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from lsx.bench.client_row import HEAD
from lsx.bench.report import BenchReport, changes, different_options
from lsx.cli.console import out, show_table
from lsx.errors import BenchFailed, UsageError

__all__ = ["show_changes", "show_report"]


_SHOWN = 0.01  # share of a run from which on the terminal shows an operator


def _table(*head: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, no_wrap=True)
    return table


def show_report(report: BenchReport) -> None:
    """Tables for the terminal."""
    bundle = report.bundle
    out.print(f"{bundle['model']}, {bundle['resolution']} px, {bundle['precision']}; GPU: {report.machine['GPU']}")
    if report.rows:
        table = _table("", "contender", "median ms", "quartiles", "first ms", "rounds", "ratio", "quartiles")
        for row in report.rows:
            s, r = row.seconds, row.ratio
            table.add_row(
                row.what,
                row.contender,
                f"{1e3 * s.median:.1f}",
                "" if s.repeats < 2 else f"{1e3 * s.low:.1f} to {1e3 * s.high:.1f}",
                "" if s.first is None else f"{1e3 * s.first:.1f}",
                str(s.repeats),
                "" if r is None else f"{r.median:.2f}x",
                "" if r is None or r.repeats < 2 else f"{r.low:.2f} to {r.high:.2f}",
            )
        show_table(table)
        for section in dict.fromkeys(row.section for row in report.rows):
            versus = next((r.versus for r in report.rows if r.section == section and r.versus), None)
            if versus is not None:
                out.print(f"ratio, {section}: {versus}'s seconds over the contender's, pair by pair")
    for stages in report.stages:
        parts = ", ".join(f"{s.name} {100 * s.seconds / stages.seconds:.1f} %" for s in stages.stages)
        out.print(
            f"{stages.what}, {stages.contender}: {parts}; engines ran {100 * stages.device_busy:.1f} % of the time"
        )
    for line in report.unet_lines():
        out.print(line)
    for share in report.host:
        out.print(f"{share.name}, one core: {1e3 * share.seconds:.1f} ms, {1 / share.seconds:.0f} frames/s")
    if report.roofline is not None:
        roof = report.roofline
        peak = "" if roof.peak_flops is None else f"{roof.peak_flops / 1e12:.3g} TFLOP/s, "
        out.print(f"peaks: {peak}{roof.peak_bytes / 1e9:.3g} GB/s ({roof.how})")
        table = _table("graph", "contender", "GFLOP", "TFLOP/s", "of peak", "GB/s", "of peak")
        for one in roof.rows:
            table.add_row(
                one.graph,
                one.contender,
                f"{one.flops / 1e9:.4g}",
                f"{one.flops / one.seconds / 1e12:.3g}",
                "" if one.flops_share is None else f"{100 * one.flops_share:.1f} %",
                f"{one.bytes / one.seconds / 1e9:.3g}",
                f"{100 * one.bytes_share:.1f} %",
            )
        show_table(table)
    _show_profile(report)
    for cold in report.cold:
        parts = ", ".join(f"{s.name} {s.seconds:.2f} s" for s in cold.steps)
        out.print(f"cold start on {cold.contender}: {cold.seconds:.2f} s ({parts})")
    _show_runs(report)
    for note in report.notes:
        out.print(f"note: {escape(note)}")


def _show_profile(report: BenchReport) -> None:
    """Operators that took a hundredth of a graph's time or more."""
    if report.profile:
        table = _table("graph", "operator", "ms a run", "share", "nodes")
        for row in report.profile:
            if row.share >= _SHOWN:
                table.add_row(
                    row.graph, row.operator, f"{1e3 * row.seconds:.1f}", f"{100 * row.share:.1f} %", str(row.count)
                )
        show_table(table)


def _show_runs(report: BenchReport) -> None:
    """Clip, clients, long run and sweep."""
    if report.clip is not None:
        c = report.clip
        device = "" if c.peak_device_bytes is None else f", device {c.peak_device_bytes / 2**20:.0f} MiB"
        cost = "" if c.cost_per_minute is None else f"; {c.cost_per_minute:.4g} a minute of video"
        out.print(
            f"clip: {c.frames} frames, {c.seconds_per_second:.3f} s a second of video, "
            f"first frame {c.first_frame:.2f} s, "
            f"chunks p50 {c.chunk_p50:.2f}, p95 {c.chunk_p95:.2f}, p99 {c.chunk_p99:.2f} s; peak memory host "
            f"{c.peak_host_bytes / 2**20:.0f} MiB{device}; {c.streams:.3f} streams at 25 frames/s{cost}"
        )
    if report.clients:
        table = _table(*HEAD)
        for row in report.clients:
            table.add_row(*row.cells)
        show_table(table)
    if report.live is not None:
        out.print(report.live.line)
    if report.long_run is not None:
        run = report.long_run
        out.print(f"long run: {run.frames} frames in {run.seconds:.0f} s, memory grew by {100 * run.growth:.2f} %")
    if report.sweep is not None:
        table = _table(
            "precision", "sampler", "steps", "cache", "s a chunk", "error", "lips", "mouth PSNR", "StableSyncNet", ""
        )
        for p in sorted(report.sweep.points, key=lambda p: p.seconds):
            table.add_row(*p.cells, "Pareto" if p.pareto else "")
        show_table(table)
        out.print(f"error: levels inside the mask, against {report.sweep.reference}")
        out.print(report.sweep.recommendation)


def show_changes(earlier: BenchReport, report: BenchReport, threshold: float) -> None:
    """Print the change of every figure; raise BenchFailed where one is slower by more than the threshold."""
    others = different_options(earlier, report)
    if others:
        raise UsageError(f"the two reports are of other things ({'; '.join(others)}): measure with the same options")
    differences = changes(earlier, report)
    if not differences:
        raise UsageError("the two reports have no figure in common: measure the same sections, backends and steps")
    for name in ("GPU", "CPU", "system", "onnxruntime", "torch"):
        if earlier.machine.get(name) != report.machine.get(name):
            out.print(f"note: {name} was {earlier.machine.get(name)}, and is {report.machine.get(name)}")
    if earlier.bundle != report.bundle:
        rows = [
            f"{name} {earlier.bundle.get(name)}, now {value}"
            for name, value in report.bundle.items()
            if name != "manifest_sha256" and earlier.bundle.get(name) != value
        ]
        out.print(escape(f"note: the bundles differ: {', '.join(rows) or 'another export of the same kind'}"))
    table = _table("figure", "before s", "now s", "change")
    for change in differences:
        percent = f"{100 * change.change:+.1f} %"
        table.add_row(escape(change.name), f"{change.before:.4g}", f"{change.after:.4g}", percent)
    show_table(table)
    missing = dict(earlier.figures()).keys() - {change.name for change in differences}
    if missing:
        out.print(f"not measured this time: {', '.join(escape(name) for name in sorted(missing))}")
    slower = [c for c in differences if c.change > threshold]
    if slower:
        worst = max(slower, key=lambda c: c.change)
        raise BenchFailed(
            f"{len(slower)} of {len(differences)} figures are over {100 * threshold:g} % slower; worst: {worst.name}, "
            f"{100 * worst.change:+.1f} %"
        )
    out.print(f"no figure is over {100 * threshold:g} % slower")
