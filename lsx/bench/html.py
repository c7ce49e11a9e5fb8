"""report.html of a bench: one file, tables and SVG plots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from itertools import chain

from lsx.bench.client_row import HEAD
from lsx.bench.report import BenchReport, LongRun, Roofline, Row, Spread, Stages, Sweep, SweepPoint
from lsx.core.graph_names import GRAPH_WORDS
from lsx.reporting.html import Point, Series, bars, document, four_digits, plot, table

__all__ = ["bench_html"]

_POINTS = 1000  # of a plot over time
_LABELLED = 14  # points, above which only the best are


def bench_html(report: BenchReport) -> str:
    """The page."""
    return document("lsx bench", _parts(report))


def _parts(report: BenchReport) -> Iterator[str]:
    b = report.bundle
    yield "<h1>lsx bench</h1>"
    yield f"<p>{escape(b['model'])}, {b['resolution']} px, {escape(b['precision'])}; lsx {report.lsx_version}, "
    yield f"{escape(report.created)}</p>"
    if report.command:
        yield f"<p><code>{escape(report.command)}</code></p>"
    for note in report.notes:
        yield f'<p class="bad">{escape(note)}</p>'
    yield from _sections(report)
    yield from chain.from_iterable(_stages(stages) for stages in report.stages)
    yield from (f"<p>{escape(line)}</p>" for line in report.unet_lines())
    if report.host:
        yield "<h2>The host's stages, one core</h2>"
        yield table(("stage", "ms a frame"), ((s.name, f"{1e3 * s.seconds:.1f}") for s in report.host))
    if report.roofline is not None:
        yield from _roofline(report.roofline)
    if report.profile:
        yield "<h2>Operators, ONNX Runtime on the CPU</h2>"
        yield table(
            ("graph", "operator", "ms a run", "share", "nodes"),
            (
                (r.graph, r.operator, f"{1e3 * r.seconds:.1f}", f"{100 * r.share:.1f} %", str(r.count))
                for r in report.profile
            ),
        )
    yield from _clip(report)
    yield from _several(report)
    if report.cold:
        yield "<h2>Cold start</h2>"
        for cold in report.cold:
            yield f"<p>{escape(cold.contender)}: {cold.seconds:.2f} s until the first frame</p>"
            yield bars("cold start", [(s.name, s.seconds, f"{s.seconds:.2f} s") for s in cold.steps])
    if report.long_run is not None:
        yield from _long(report.long_run)
    if report.sweep is not None:
        yield from _sweep(report.sweep)
    yield "<h2>Machine and options</h2>"
    options = {name: _words(text) for name, text in report.options.items() if text not in ("None", "()", "False")}
    yield table(("", ""), (*report.machine.items(), *b.items(), *options.items()), numbers=False)


def _words(option: str) -> str:
    """An option as the report keeps it, a tuple of names or paths as a list."""
    return ", ".join(re.findall(r"'([^']*)'", option)) if option.startswith("(") else option


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms" if seconds < 1 else f"{seconds:.4g} s"


def _sections(report: BenchReport) -> Iterator[str]:
    for section, title in (("chunk", "The 16-frame chunk"), ("graphs", "Graphs")):
        rows = [row for row in report.rows if row.section == section]
        if rows:
            yield f"<h2>{title}</h2>"
            versus = next((row.versus for row in rows if row.versus is not None), None)
            if versus is not None:
                yield f"<p>Ratios are {escape(versus)}'s time over the contender's, pair by pair.</p>"
            for what in dict.fromkeys(row.what for row in rows):
                yield from _rows(what, [row for row in rows if row.what == what])


def _rows(what: str, rows: list[Row]) -> Iterator[str]:
    words = GRAPH_WORDS.get(what)
    yield f"<h3>{escape(what)}{'' if words is None else f': {words}'}</h3>"
    drawn = []
    for row in rows:
        ratio = "" if row.ratio is None else f", {row.ratio.median:.2f}x"
        drawn.append((row.contender, row.seconds.median, f"{_time(row.seconds.median)}{ratio}"))
    yield bars(what, drawn, colours=[5 if row.contender.startswith("PyTorch") else 0 for row in rows])
    yield table(
        ("contender", "median ms", "quartiles", "first ms", "rounds", "ratio", "quartiles"),
        (
            (
                row.contender,
                four_digits(1e3 * row.seconds.median),
                _quartiles(row.seconds, 1e3),
                "" if row.seconds.first is None else four_digits(1e3 * row.seconds.first),
                row.seconds.repeats,
                "" if row.ratio is None else f"{row.ratio.median:.3f}",
                "" if row.ratio is None else _quartiles(row.ratio),
            )
            for row in rows
        ),
    )


def _quartiles(spread: Spread, scale: float = 1.0) -> str:
    """One round has none."""
    return (
        "one round"
        if spread.repeats < 2
        else f"{four_digits(scale * spread.low)} to {four_digits(scale * spread.high)}"
    )


def _stages(stages: Stages) -> Iterator[str]:
    yield f"<h3>{escape(stages.what)}: {escape(stages.contender)}</h3>"
    overlap = "they overlap" if stages.overlapping else "one after the other"
    yield f"<p>{stages.seconds:.3g} s in all, {overlap}; engines ran {100 * stages.device_busy:.1f} % of the time.</p>"
    drawn = []
    for share in stages.stages:
        times = f" ({share.count} times)" if share.count > 1 else ""
        label = f"{_time(share.seconds)}, {100 * share.seconds / stages.seconds:.1f} %"
        if share.waited:
            label += f", waited {100 * share.waited / stages.seconds:.0f} %"
        drawn.append((f"{share.name}{times}", share.seconds, label))
    yield bars("stages", drawn, colours=[5 if s.name == "wait" else 0 for s in stages.stages])


def _roofline(roof: Roofline) -> Iterator[str]:
    peak = "not measured" if roof.peak_flops is None else f"{roof.peak_flops / 1e12:.4g} TFLOP/s"
    yield "<h2>Roofline</h2>"
    yield f"<p>Measured peaks: {peak}, {roof.peak_bytes / 1e9:.4g} GB/s ({escape(roof.how)}). FLOPs are "
    yield "counted from the ONNX graphs; bytes are what every layer of the built plan reads and writes "
    yield "(plan), or where it does not tell the graph's weights, inputs and outputs, each once (graph).</p>"
    yield from _roofline_plot(roof)
    yield table(
        ("graph", "contender", "GFLOP", "MB", "ms", "TFLOP/s", "of peak", "GB/s", "of peak", "bytes of", "bound"),
        (
            (
                r.graph,
                r.contender,
                four_digits(r.flops / 1e9),
                four_digits(r.bytes / 1e6),
                four_digits(1e3 * r.seconds),
                four_digits(r.flops / r.seconds / 1e12),
                "" if r.flops_share is None else f"{100 * r.flops_share:.1f} %",
                four_digits(r.bytes / r.seconds / 1e9),
                f"{100 * r.bytes_share:.1f} %",
                r.bytes_of,
                r.bound or "",
            )
            for r in roof.rows
        ),
    )


def _roofline_plot(roof: Roofline) -> Iterator[str]:
    """Every graph under the peaks, where both peaks were measured."""
    shown = [row for row in roof.rows if row.flops]
    if shown and roof.peak_flops is not None:
        intensities = [row.flops / row.bytes for row in shown]
        ends = (min(*intensities, 1.0) / 2, max(intensities) * 2)
        ridge = roof.peak_flops / roof.peak_bytes
        edge = sorted({*ends, min(max(ridge, ends[0]), ends[1])})
        top = [Point(x=x, y=min(roof.peak_bytes * x, roof.peak_flops) / 1e12) for x in edge]
        contenders = list(dict.fromkeys(row.contender for row in shown))
        dots = [
            Series(
                name=contender,
                line=False,
                colour=number,
                points=[
                    Point(x=r.flops / r.bytes, y=r.flops / r.seconds / 1e12, said=r.graph, quiet=number > 0)
                    for r in shown
                    if r.contender == contender
                ],
            )
            for number, contender in enumerate(contenders)
        ]
        yield plot(
            "roofline",
            [Series(name="measured peaks", points=top, colour=5), *dots],
            x_title="FLOPs a byte",
            y_title="TFLOP/s",
            x_log=True,
            y_log=True,
        )


def _clip(report: BenchReport) -> Iterator[str]:
    clip = report.clip
    if clip is None:
        return
    rows = [
        ("frames", str(clip.frames)),
        ("seconds of compute per second of video", f"{clip.seconds_per_second:.3f}"),
        ("first frame", f"{clip.first_frame:.3f} s"),
        ("a chunk, p50, p95, p99", f"{clip.chunk_p50:.3f}, {clip.chunk_p95:.3f}, {clip.chunk_p99:.3f} s"),
        ("peak host memory", f"{clip.peak_host_bytes / 2**20:.0f} MiB"),
        ("streams per device at 25 frames/s", f"{clip.streams:.3f}"),
    ]
    if clip.peak_device_bytes is not None:
        rows.append(("peak device memory", f"{clip.peak_device_bytes / 2**20:.0f} MiB"))
    if clip.cost_per_minute is not None:
        rows.append(("cost per minute of video", four_digits(clip.cost_per_minute)))
    yield f"<h2>{escape(clip.video)} with {escape(clip.audio)}</h2>"
    yield table(("", ""), rows)


def _several(report: BenchReport) -> Iterator[str]:
    """Clients at once, and a live talker."""
    if report.clients:
        yield "<h2>Clients at once, engines loaded once</h2>"
        yield table(HEAD, (row.cells for row in report.clients))
    if report.live is not None:
        yield f"<p>{escape(report.live.line)}</p>"


def _long(run: LongRun) -> Iterator[str]:
    verdict = '<b class="good">flat</b>' if run.judged else "too short a run to judge"
    verdict = '<b class="bad">failed</b>' if run.failed else verdict
    yield "<h2>Long run</h2>"
    yield f"<p>{run.frames} frames in {run.seconds:.0f} s; memory: {verdict}, growth {100 * run.growth:.2f} %.</p>"
    some = max(len(run.at) // _POINTS, 1)
    for name, taken in (("host", run.host_bytes), ("device", run.device_bytes)):
        if taken:
            points = [Point(x=t, y=m / 2**20) for t, m in zip(run.at, taken, strict=True)][::some]
            title = f"{name} memory, MiB"
            yield plot(title, [Series(name="", points=points)], x_title="seconds", y_title=title, zero=False)


_SWEEP_COLUMNS = (
    "precision",
    "sampler",
    "steps",
    "cache interval",
    "s a chunk",
    "error",
    "lips",
    "mouth PSNR",
    "StableSyncNet",
    "Pareto",
)


def _sweep(sweep: Sweep) -> Iterator[str]:
    yield "<h2>Speed against quality</h2>"
    yield f"<p>Error against {escape(sweep.reference)}: root mean square inside the mask, in levels of 255.</p>"
    best = sorted((p for p in sweep.points if p.pareto), key=lambda p: p.seconds)
    precisions = list(dict.fromkeys(p.precision for p in sweep.points))
    crowded = len(sweep.points) > _LABELLED

    def point(one: SweepPoint) -> Point:
        cache = "" if one.cache_interval is None else f"/{one.cache_interval}"
        kind = f"{one.precision} " if len(precisions) > 1 else ""
        label = f"{kind}{one.sampler} {one.steps}{cache}"
        return Point(x=one.seconds, y=one.error, said=label, quiet=crowded and not one.pareto)

    every = [
        Series(
            name=precision,
            points=[point(p) for p in sweep.points if p.precision == precision],
            line=False,
            colour=number,
        )
        for number, precision in enumerate(precisions)
    ]
    edge = Series(name="Pareto set", points=[Point(x=p.seconds, y=p.error) for p in best], colour=5)
    yield plot("speed against quality", [edge, *every], x_title="seconds a chunk", y_title="error, levels")
    yield table(
        _SWEEP_COLUMNS,
        ((*p.cells, "yes" if p.pareto else "") for p in sorted(sweep.points, key=lambda p: p.seconds)),
    )
    yield f"<p><b>{escape(sweep.recommendation)}</b></p>"
