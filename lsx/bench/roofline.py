"""Graphs against what the machine could do: FLOPs and bytes counted from ONNX, seconds measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lsx.bench.flops import graph_cost
from lsx.bench.peaks import Peaks
from lsx.bench.report import Roofline, RoofRow, Row
from lsx.bundle import Bundle

__all__ = ["roofline"]


def roofline(
    rows: Iterable[Row], peaks: Peaks, axes: Mapping[str, Mapping[str, int]], bundles: Mapping[str, Bundle]
) -> Roofline:
    """Every measured graph against `peaks`. axes : lengths by graph, as measured; bundles : those of the systems."""
    ridge = None if peaks.flops is None else peaks.flops / peaks.bytes
    found = []
    for row in rows:
        if row.section != "graphs" or row.system not in bundles:
            continue
        cost = graph_cost(bundles[row.system], row.what, dict(axes[row.what]))
        seconds = row.seconds.median
        found.append(
            RoofRow(
                graph=row.what,
                system=row.system,
                flops=cost.flops,
                bytes=cost.bytes,
                seconds=seconds,
                flops_share=None if peaks.flops is None else cost.flops / seconds / peaks.flops,
                bytes_share=cost.bytes / seconds / peaks.bytes,
                bound=None if ridge is None else "compute" if cost.flops / cost.bytes > ridge else "memory",
            )
        )
    return Roofline(peak_flops=peaks.flops, peak_bytes=peaks.bytes, how=peaks.how, rows=tuple(found))
