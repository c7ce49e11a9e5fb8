"""The page of a data set: counts, why pieces were dropped, histograms, and some of its faces."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from lsx.reporting.html import bars, document, table
from lsx.training.data_index import duration
from lsx.training.inspection import DataStatistics
from lsx.training.shards import DataSet

__all__ = ["data_html"]

_BINS = 10


def data_html(data: DataSet, statistics: DataStatistics, sheet: bytes) -> str:
    """The page. sheet : the contact sheet as PNG."""
    s, info = statistics, data.info
    checked = (
        f"SyncNet corrected the sound of {s.sync_checked} of {s.segments} segments."
        if s.sync_checked
        else "Sound offsets were not checked: SyncNet was not given."
    )
    rows = (
        ("segments", s.segments),
        ("length", duration(s.seconds)),
        ("videos", s.sources),
        ("shards", f"{s.shards} ({s.bytes / 2**20:.1f} MiB)"),
        ("pieces dropped", f"{s.dropped_pieces} ({duration(s.dropped_seconds)})"),
    )
    kinds = [(kind[:60], float(count), str(count)) for kind, count in s.dropped.items()]
    parts = [
        f"<h1>{escape(data.folder.absolute().name)}</h1>",
        f"<p>{info.resolution} x {info.resolution}, {info.fps} fps, {info.sample_rate // 1000} kHz, "
        f"{escape(info.codec)}; lsx {escape(info.lsx_version)}</p>",
        f"<p>{checked}</p>",
        table(("", ""), rows),
        "<h2>Why pieces were dropped</h2>",
        bars("reasons", kinds) or "<p>None was.</p>",
        _histogram("Height of the face in the video, pixels", [row.face_height for row in data.rows]),
        _histogram("Sharpness", [row.sharpness for row in data.rows]),
        _histogram("Length, seconds", [row.seconds for row in data.rows]),
        _histogram("Sync confidence", [r.sync_confidence for r in data.rows if r.sync_confidence is not None]),
        _histogram("Sound offset corrected, frames", [r.sync_offset for r in data.rows if r.sync_offset is not None]),
        "<h2>Some of its faces</h2>",
        f'<div class="wide"><img style="width: auto" alt="contact sheet" src="{_embedded(sheet)}"></div>',
        "<p>A row a segment, evenly spread over the data set.</p>",
    ]
    return document(f"lsx data: {data.folder.absolute().name}", parts)


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _histogram(title: str, values: Sequence[float]) -> str:
    """Bars of equal width over the values; nothing where there are none."""
    if not values:
        return ""
    heading = f"<h2>{escape(title)}</h2>"
    low, high = min(values), max(values)
    if low == high:
        return f"{heading}<p>{low:g} in all {len(values)}.</p>"
    counts, edges = np.histogram(values, bins=_BINS)
    rows = [
        (f"{edges[i]:.4g} to {edges[i + 1]:.4g}", float(count), str(count)) for i, count in enumerate(counts.tolist())
    ]
    return heading + bars(title, rows)
