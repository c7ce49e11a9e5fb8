"""The time of a graph on a CPU by operator: ONNX Runtime's own profile, summed by operator."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lsx.bench.report import ProfileRow
from lsx.bench.workloads import graph_feed
from lsx.bundle.bundle import Bundle
from lsx.engines.onnxruntime import cpu_engine

__all__ = ["operator_rows", "profile_graphs"]

_RUNS = 3
OUTSIDE = "outside operators"
"""Time of a run in which no operator worked: between them, and for inputs and outputs."""


def profile_graphs(
    bundle: Bundle,
    graphs: Sequence[str],
    axes: Mapping[str, int],
    *,
    threads: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[ProfileRow, ...]:
    """Profile each graph on ONNX Runtime's CPU provider at the lengths `axes`, after a warm-up run.

    Profiling itself costs some microseconds a node, so the sums are a little over an unprofiled run's time.
    """
    rows: list[ProfileRow] = []
    with TemporaryDirectory() as folder:
        for graph in graphs:
            say(f"profile of {graph}")
            engine = cpu_engine(bundle, graph, axes, threads=threads, profile=Path(folder) / graph)
            with engine:
                feed = graph_feed(engine, axes)
                for _ in range(1 + _RUNS):
                    engine.run(feed)
                events = json.loads(engine.end_profiling().read_text(encoding="utf-8"))
            rows += operator_rows(graph, events, skip=1)
    return tuple(rows)


def operator_rows(graph: str, events: Sequence[Mapping[str, object]], skip: int) -> list[ProfileRow]:
    """ONNX Runtime's events, times in microseconds, as rows a run, the longest first. skip : runs left out at first."""
    runs = [e for e in events if e.get("cat") == "Session" and e.get("name") == "model_run"]
    runs = sorted(runs, key=lambda e: _number(e["ts"]))[skip:]
    since = _number(runs[0]["ts"])
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for event in events:
        arguments = event.get("args")
        kernel = event.get("cat") == "Node" and str(event.get("name")).endswith("_kernel_time")
        if not kernel or not isinstance(arguments, Mapping) or _number(event["ts"]) < since:
            continue
        operator = str(arguments["op_name"])
        seconds[operator] += _number(event["dur"]) * 1e-6 / len(runs)
        counts[operator] += 1
    whole = sum(_number(run["dur"]) for run in runs) * 1e-6 / len(runs)
    seconds[OUTSIDE] = max(whole - sum(seconds.values()), 0.0)
    return [
        ProfileRow(
            graph=graph, operator=name, seconds=spent, share=spent / whole, count=round(counts[name] / len(runs))
        )
        for name, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def _number(value: object) -> float:
    return float(str(value))
