"""What a data set holds: figures, a contact sheet, and whether every byte is as it was written."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lsx.core.atomic_files import sha256_of
from lsx.core.tensors import Frame
from lsx.errors import UsageError
from lsx.faces.contact_sheet import captioned, sheet_of
from lsx.training.data_index import SegmentRow
from lsx.training.prepare import reason_kind
from lsx.training.shards import SHARDS, DataSet

__all__ = ["DataStatistics", "check_shards", "contact_sheet", "statistics_of"]

_MOST_ROWS, _FACES_A_ROW = 24, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStatistics:
    """A data set in figures."""

    segments: int
    seconds: float
    sources: int
    """Videos of which a segment was kept."""
    shards: int
    bytes: int
    """Bytes of all shards."""
    sync_checked: int
    """Segments whose sound SyncNet corrected."""
    dropped_pieces: int
    dropped_seconds: float
    """Seconds of pieces whose length is known: a video that could not be read has none."""
    dropped: Mapping[str, int]
    """Pieces by the kind of their reason, most first."""


def statistics_of(data: DataSet) -> DataStatistics:
    """Count. Raises MediaError where the list of dropped pieces is damaged."""
    dropped = data.dropped()
    return DataStatistics(
        segments=len(data.rows),
        seconds=sum(row.seconds for row in data.rows),
        sources=len({row.sha256 or row.source for row in data.rows}),
        shards=len(data.info.shards),
        bytes=sum(shard.size for shard in data.info.shards),
        sync_checked=sum(row.sync_confidence is not None for row in data.rows),
        dropped_pieces=len(dropped),
        dropped_seconds=sum(row.stop - row.start for row in dropped),
        dropped=dict(Counter(reason_kind(row.reason) for row in dropped).most_common()),
    )


def contact_sheet(data: DataSet) -> Frame:
    """A row of faces for each of at most 24 segments, evenly spread. Raises MediaError, UsageError."""
    if not data.rows:
        raise UsageError(f"{data.folder}: no segment is in it, so there is no face to show")
    tiles: list[Frame] = []
    for row in _sampled(data.rows):
        for place in np.linspace(0, row.frames - 1, _FACES_A_ROW).round().astype(int).tolist():
            face = data.faces(row, range(place, place + 1))[0]
            tiles.append(captioned(face, (row.source or row.key)[-24:], f"{(row.start + place) / data.info.fps:.1f} s"))
    return sheet_of(tiles, _FACES_A_ROW)


def _sampled(rows: Sequence[SegmentRow]) -> list[SegmentRow]:
    places = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).round().astype(int)
    return [rows[place] for place in places.tolist()]


def check_shards(data: DataSet, progress: Callable[[str, float], None] | None = None) -> list[str]:
    """Read every shard whole: its hash, its members' names and sizes against the index. Returns what is wrong."""
    report = progress or (lambda _what, _share: None)
    wrong: list[str] = []
    listed = {shard.name for shard in data.info.shards}
    wrong += [f"{row.key}: its shard {row.shard} is not in data.json" for row in data.rows if row.shard not in listed]
    for number, shard in enumerate(data.info.shards, 1):
        path = data.folder / SHARDS / shard.name
        expected: dict[str, tuple[int, int]] = {}
        for row in data.rows:
            if row.shard == shard.name:
                expected[f"{row.key}.webp"] = (row.video_offset, row.video_size)
                expected[f"{row.key}.wav"] = (row.audio_offset, row.audio_size)
        if sha256_of(path) != shard.sha256:
            wrong.append(f"{path}: its bytes are not those that were written. Copy it again")
        try:
            with tarfile.open(path) as tar:
                there = {m.name: (m.offset_data, m.size) for m in tar if not m.name.endswith(".json")}
        except tarfile.TarError as error:
            wrong.append(f"{path}: not a whole tar file ({error})")
        else:
            names = sorted(name for name in {*expected, *there} if expected.get(name) != there.get(name))
            wrong += [f"{path}: {name} is not as the index says" for name in names]
        report(f"reading {shard.name}", number / len(data.info.shards))
    return wrong
