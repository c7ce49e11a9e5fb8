"""A data set on disk: tar shards in WebDataset's layout, an index in Parquet, and its reader by offsets.

    DATA/data.json         resolution, codec, shards with their hashes, how it was made
    DATA/index.parquet     a row for each segment that was kept, with the bytes where it lies
    DATA/dropped.parquet   a row for each piece that was not, with its reason
    DATA/shards/000000.tar KEY.webp (faces), KEY.wav (16 kHz, mono, int16), KEY.json, of each segment

Nothing in it depends on time, on the machine or on the number of processes.
"""

from __future__ import annotations

import io
import json
import shutil
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

import lsx
from lsx.core.atomic_files import check_replaceable, put_in_place, sha256_of
from lsx.core.tensors import Frame
from lsx.errors import MediaError, OutputError, UsageError
from lsx.training.animated_webp import CODECS, Quality, decode_frames, table_bytes, table_of
from lsx.training.data_index import (
    DATA_SCHEMA,
    DataInfo,
    DroppedRow,
    SegmentMeta,
    SegmentRow,
    ShardEntry,
    parquet_of,
    rows_of,
)
from lsx.training.tar_shard import SAMPLES_A_FRAME, EncodedSegment, TarShard, encode_segment, read_bytes

__all__ = [
    "DATA_FILE",
    "SAMPLES_A_FRAME",
    "SHARDS",
    "DataSet",
    "DroppedRow",
    "EncodedSegment",
    "SegmentMeta",
    "SegmentRow",
    "ShardWriter",
    "TarShard",
    "encode_segment",
]

DATA_FILE = "data.json"
SHARDS = "shards"
"""The folder of the tar files."""

_INDEX, _DROPPED = "index.parquet", "dropped.parquet"


class ShardWriter:
    """Writes a data set. Use as a context manager: the folder appears, whole, when the block ends well.

    An older data set under that name is replaced then. Keys may come in any order; the index is sorted by them.

    Raises OutputError where `output` cannot be written or is something else, UsageError.
    """

    def __init__(
        self,
        output: Path,
        *,
        resolution: int,
        quality: Quality = "lossless",
        samples_per_shard: int = 64,
        prepared: Mapping[str, Any] | None = None,
    ) -> None:
        if samples_per_shard < 1:
            raise UsageError(f"samples_per_shard is {samples_per_shard}; give 1 or more (64 is usual)")
        check_replaceable(output, "data set", lambda folder: (folder / DATA_FILE).is_file())
        self._output = output.absolute()
        self._folder = self._output.with_name(f".{self._output.name}-writing")
        self._resolution, self._quality, self._samples_per_shard = resolution, quality, samples_per_shard
        self._prepared = prepared
        self._rows: dict[str, SegmentRow] = {}
        self._dropped: list[DroppedRow] = []
        self._shard: TarShard | None = None
        self._shards: list[Path] = []

    def __enter__(self) -> ShardWriter:
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        (self._folder / SHARDS).mkdir(parents=True)
        return self

    def add(
        self, key: str, faces: Iterable[Frame], samples: NDArray[np.int16], meta: SegmentMeta | None = None
    ) -> None:
        """Append a segment: what `encode_segment` takes. Raises UsageError, OutputError."""
        self.add_encoded(
            encode_segment(
                key, faces, samples, meta or SegmentMeta(), resolution=self._resolution, quality=self._quality
            )
        )

    def add_encoded(self, segment: EncodedSegment) -> None:
        """Append a segment that was encoded at this resolution and quality. Raises UsageError, OutputError."""
        if segment.key in self._rows:
            raise UsageError(f"key {segment.key} is there already; give every segment its own")
        try:
            if self._shard is None or len(self._rows) % self._samples_per_shard == 0:
                self._close_shard()
                self._shard = TarShard(self._folder / SHARDS / f"{len(self._shards):06d}.tar")
                self._shards.append(self._shard.path)
            self._rows[segment.key] = self._shard.add(segment)
        except OSError as error:
            raise OutputError(f"{self._output}: cannot be written: {error.strerror or error}") from error

    def drop(self, rows: Iterable[DroppedRow]) -> None:
        """Note pieces that were left out."""
        self._dropped += rows

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._close_shard()
            if kind is None:
                self._commit()
        except OSError as error:
            raise OutputError(f"{self._output}: cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _commit(self) -> None:
        rows = sorted(self._rows.values(), key=lambda row: row.key)
        (self._folder / _INDEX).write_bytes(parquet_of(SegmentRow, rows))
        (self._folder / _DROPPED).write_bytes(parquet_of(DroppedRow, self._dropped))
        info = DataInfo(
            schema_version=DATA_SCHEMA,
            lsx_version=lsx.__version__,
            resolution=self._resolution,
            codec=CODECS[self._quality],
            segments=len(rows),
            shards=tuple(
                ShardEntry(name=shard.name, size=shard.stat().st_size, sha256=sha256_of(shard))
                for shard in self._shards
            ),
            prepared=None if self._prepared is None else dict(self._prepared),
        )
        (self._folder / DATA_FILE).write_text(info.text(), encoding="utf-8")
        put_in_place(self._folder, self._output)


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """An opened data set: any frames of any segment, read by their offsets. Open one with `DataSet.open(folder)`.

    It holds no open file and can be pickled, so that the workers of a DataLoader may have it.
    """

    folder: Path
    info: DataInfo
    rows: tuple[SegmentRow, ...]
    """Segments, sorted by key."""

    @classmethod
    def open(cls, folder: Path | str) -> DataSet:
        """Read the index, and look whether every shard has its length.

        Raises UsageError where there is no data set, MediaError where one is damaged or of another schema.
        """
        folder = Path(folder)
        file = folder / DATA_FILE
        if not file.is_file():
            raise UsageError(
                f"{folder}: no data set ({DATA_FILE} is not there). Make one: lsx data prepare -o {folder}"
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("schema_version") != DATA_SCHEMA:
                raise MediaError(f"{folder}: not of the schema that this lsx reads ({DATA_SCHEMA}). Prepare it again")
            info = DataInfo.model_validate(content)
            rows = rows_of(SegmentRow, (folder / _INDEX).read_bytes())
        except (OSError, ValueError, TypeError, ValidationError, pa.ArrowException) as error:
            raise MediaError(f"{folder}: damaged ({str(error).splitlines()[0]}). Copy or prepare it again") from error
        if len(rows) != info.segments:
            raise MediaError(f"{folder / _INDEX}: {len(rows)} rows, {info.segments} expected. Copy or prepare it again")
        data = cls(folder, info, rows)
        for shard in info.shards:
            data._check_length(shard)
        return data

    def _check_length(self, shard: ShardEntry) -> None:
        path = self.folder / SHARDS / shard.name
        size = path.stat().st_size if path.is_file() else 0
        if size != shard.size:
            state = "is not there" if not path.is_file() else f"cut off: {size} of {shard.size} bytes are there"
            raise MediaError(f"{path}: {state}. Copy it again, or prepare the data set again")

    @property
    def quality(self) -> Quality:
        """How faces are stored."""
        return next(quality for quality, codec in CODECS.items() if codec == self.info.codec)

    def dropped(self) -> tuple[DroppedRow, ...]:
        """What was left out, and why. Raises MediaError."""
        file = self.folder / _DROPPED
        try:
            return rows_of(DroppedRow, file.read_bytes())
        except (OSError, ValueError, TypeError, pa.ArrowException) as error:
            raise MediaError(f"{file}: damaged ({str(error).splitlines()[0]}). Copy or prepare it again") from error

    def faces(self, row: SegmentRow, frames: range) -> Frame:
        """Consecutive frames of a segment: new array uint8 [n, resolution, resolution, 3] RGB. Reads those alone.

        Raises UsageError for frames that the segment does not have, MediaError for a shard that is damaged.
        """
        if frames.step != 1 or not 0 <= frames.start < frames.stop <= row.frames:
            raise UsageError(f"{row.key}: frames {frames} of {row.frames}; give consecutive ones of 0..{row.frames}")
        end = row.video_size - table_bytes(row.frames)
        table = table_of(self._read(row, row.video_offset + end + table_bytes(frames.start), table_bytes(len(frames))))
        first, last = int(table[0, 0]), int(table[-1, 0]) + int(table[-1, 1])
        if not 0 < first < last <= end:
            raise MediaError(f"{self._name(row)} is damaged. Copy the shard again, or prepare the data set again")
        content = self._read(row, row.video_offset + first, last - first)
        return decode_frames(content, table, self.info.resolution, self._name(row))

    def samples(self, row: SegmentRow) -> NDArray[np.int16]:
        """The sound of a segment: int16 [640 * frames] at 16 kHz, mono. Raises MediaError."""
        try:
            with wave.open(io.BytesIO(self._read(row, row.audio_offset, row.audio_size))) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.int16)
        except (wave.Error, EOFError):
            samples = np.zeros(0, np.int16)
        if len(samples) != row.frames * SAMPLES_A_FRAME:
            raise MediaError(
                f"{self._name(row)} has damaged sound. Copy the shard again, or prepare the data set again"
            )
        return samples

    def _name(self, row: SegmentRow) -> str:
        return f"{self.folder / SHARDS / row.shard}: {row.key}"

    def _read(self, row: SegmentRow, start: int, size: int) -> bytes:
        return read_bytes(self.folder / SHARDS / row.shard, start, size, row.key)
