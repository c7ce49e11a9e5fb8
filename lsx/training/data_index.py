"""What a data set says of itself: data.json, a row for every segment that was kept and for every piece that was not."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lsx.bundle.manifest import Entry
from lsx.media.audio_reader import SAMPLE_RATE
from lsx.media.video_reader import FPS

__all__ = [
    "DATA_SCHEMA",
    "DataInfo",
    "DroppedRow",
    "SegmentMeta",
    "SegmentRow",
    "ShardEntry",
    "duration",
    "parquet_of",
    "rows_of",
]

DATA_SCHEMA = 1

_Row = TypeVar("_Row", "SegmentRow", "DroppedRow")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMeta:
    """What is known of a segment besides its faces and its sound."""

    source: str = ""
    """Name of the video that it was cut from."""
    sha256: str = ""
    """The video's SHA-256."""
    start: int = 0
    """First frame in the video, at 25 a second."""
    face_height: float = 0.0
    """Median height of the face's box in the video, in pixels."""
    sharpness: float = 0.0
    """Median over frames of the variance of the Laplacian of the grey face, at most at 256 pixels."""
    sync_offset: int | None = None
    """Frames at 25 a second by which the sound came early, and was shifted; None where SyncNet was not asked."""
    sync_confidence: float | None = None
    """SyncNet's confidence after the shift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow(SegmentMeta):
    """A segment that was kept, and where it lies."""

    key: str
    """Name of its members in the shard."""
    shard: str
    """File name under `shards`."""
    frames: int
    seconds: float
    video_offset: int
    """Byte of the shard at which `KEY.webp` begins."""
    video_size: int
    audio_offset: int
    """Byte of the shard at which `KEY.wav` begins."""
    audio_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedRow:
    """A piece of a video, or all of it, that is not in the data set."""

    source: str
    sha256: str
    start: float
    """Second of the video at which the piece begins."""
    stop: float
    """Second at which it ends; 0 where the whole video could not be read."""
    reason: str


class ShardEntry(Entry):
    """A shard's file. size : in bytes."""

    name: str
    size: int
    sha256: str


class DataInfo(Entry):
    """data.json."""

    schema_version: int
    lsx_version: str
    resolution: int
    """Pixels of a side of every face."""
    fps: int = FPS
    sample_rate: int = SAMPLE_RATE
    codec: str
    """`webp lossless` or `webp lossy 95`."""
    segments: int
    shards: tuple[ShardEntry, ...]
    prepared: dict[str, Any] | None = None
    """Options of the `lsx data prepare` that made it, and what it was made from; None where something else did."""

    def text(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=1) + "\n"


def duration(seconds: float) -> str:
    """Seconds for people: 42.0 s, or 1.25 h from six minutes on."""
    return f"{seconds:.1f} s" if seconds < 360 else f"{seconds / 3600:.2f} h"


_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}


def _schema(kind: type[Any]) -> pa.Schema:
    columns = []
    for field in fields(kind):
        name, _, rest = str(field.type).partition(" | ")
        columns.append(pa.field(field.name, _TYPES[name], nullable=bool(rest)))
    return pa.schema(columns)


def parquet_of(kind: type[_Row], rows: Iterable[_Row]) -> bytes:
    """The rows as a Parquet file. The same rows give the same bytes, of one version of pyarrow."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema(kind)), file, compression="zstd")
    return file.getvalue()


def rows_of(kind: type[_Row], content: bytes) -> tuple[_Row, ...]:
    """The reverse. Raises pyarrow's errors and TypeError for what is no such file."""
    # Not on threads: with pyarrow 26.0 a process that ends soon after may abort ("terminate called without ...").
    with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
        return tuple(kind(**row) for row in file.read(use_threads=False).to_pylist())
