"""Graphs against what the machine could do: FLOPs and bytes counted from ONNX, seconds measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lsx.bench.flops import graph_cost
from lsx.bench.peaks import Peaks
from lsx.bench.report import Roofline, RoofRow, Row
from lsx.bundle.bundle import Bundle

__all__ = ["roofline"]


def roofline(
    rows: Iterable[Row],
    peaks: Peaks,
    axes: Mapping[str, Mapping[str, int]],
    bundles: Mapping[str, Bundle],
    moved: Mapping[tuple[str, str], int],
) -> Roofline:
    """Every measured graph against `peaks`.

    axes : lengths by graph, as measured; bundles : those of the contenders; moved : bytes by (contender, graph) where
    the plan's own account is known, else the graph's weights, inputs and outputs stand for them.
    """
    ridge = None if peaks.flops is None else peaks.flops / peaks.bytes
    points = []
    for row in rows:
        if row.section != "graphs" or row.contender not in bundles:
            continue
        cost = graph_cost(bundles[row.contender], row.what, dict(axes[row.what]))
        seconds = row.seconds.median
        moves = moved.get((row.contender, row.what), cost.bytes)
        points.append(
            RoofRow(
                graph=row.what,
                contender=row.contender,
                flops=cost.flops,
                bytes=moves,
                bytes_of="plan" if (row.contender, row.what) in moved else "graph",
                seconds=seconds,
                flops_share=None if peaks.flops is None else cost.flops / seconds / peaks.flops,
                bytes_share=moves / seconds / peaks.bytes,
                bound=None if ridge is None else "compute" if cost.flops / moves > ridge else "memory",
            )
        )
    return Roofline(peak_flops=peaks.flops, peak_bytes=peaks.bytes, how=peaks.how, rows=tuple(points))
