"""A segment as members of a tar file, in WebDataset's layout: encoded, and written at places that are known."""

from __future__ import annotations

import io
import json
import re
import tarfile
import wave
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.errors import MediaError, UsageError
from lsx.media.audio_reader import SAMPLE_RATE
from lsx.media.video_reader import FPS
from lsx.training.animated_webp import Quality, animation_of
from lsx.training.data_index import SegmentMeta, SegmentRow

__all__ = ["SAMPLES_A_FRAME", "EncodedSegment", "TarShard", "encode_segment", "encoded_segment", "read_bytes"]

SAMPLES_A_FRAME = SAMPLE_RATE // FPS
"""Samples of sound in one frame's time."""

_BLOCK = 512  # bytes, of a tar file
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSegment:
    """A segment as its members' bytes."""

    key: str
    meta: SegmentMeta
    frames: int
    video: bytes
    audio: bytes


def encode_segment(
    key: str,
    faces: Iterable[Frame],
    samples: NDArray[np.int16],
    meta: SegmentMeta,
    *,
    resolution: int,
    quality: Quality = "lossless",
) -> EncodedSegment:
    """Encode a segment: the same arguments give the same bytes.

    faces : uint8 [frames, resolution, resolution, 3] RGB at 25 a second, an array or one by one; samples : int16
    [640 * frames] at 16 kHz. Raises UsageError.
    """
    if _KEY.fullmatch(key) is None:
        raise UsageError(f"key is {key!r}; give letters, digits, - and _: it is a file's name, and ends at a dot")
    video, frames = animation_of(faces, resolution, quality)
    if samples.dtype != np.int16 or samples.shape != (frames * SAMPLES_A_FRAME,):
        raise UsageError(
            f"{key}: samples are {samples.dtype}{list(samples.shape)}; {frames} frames need "
            f"int16 [{frames * SAMPLES_A_FRAME}]: mono, 16 kHz, 640 a frame"
        )
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return EncodedSegment(key=key, meta=meta, frames=frames, video=video, audio=sound.getvalue())


class TarShard:
    """A tar file that is being written, member by member, with nothing in it but names, sizes and contents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")

    def add(self, segment: EncodedSegment) -> SegmentRow:
        """Append a segment's three members. Returns its row."""
        meta = asdict(segment.meta)
        said = {"key": segment.key, "frames": segment.frames, "fps": FPS, "sample_rate": SAMPLE_RATE} | meta
        video_offset = self._member(f"{segment.key}.webp", segment.video)
        audio_offset = self._member(f"{segment.key}.wav", segment.audio)
        self._member(f"{segment.key}.json", (json.dumps(said, sort_keys=True) + "\n").encode())
        return SegmentRow(
            key=segment.key,
            shard=self.path.name,
            frames=segment.frames,
            seconds=segment.frames / FPS,
            video_offset=video_offset,
            video_size=len(segment.video),
            audio_offset=audio_offset,
            audio_size=len(segment.audio),
            **meta,
        )

    def _member(self, name: str, content: bytes) -> int:
        """Returns the byte at which the content begins."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), 0o644, 0
        self._file.write(member.tobuf(tarfile.USTAR_FORMAT))
        place = self._file.tell()
        self._file.write(content)
        self._file.write(bytes(-len(content) % _BLOCK))
        return place

    def close(self) -> None:
        """End the tar file."""
        if not self._file.closed:
            self._file.write(bytes(2 * _BLOCK))
            self._file.close()


def encoded_segment(shard: Path, row: SegmentRow) -> EncodedSegment:
    """A segment as it lies in the tar file `shard`, to be copied. Raises MediaError."""
    return EncodedSegment(
        key=row.key,
        meta=SegmentMeta(**{field.name: getattr(row, field.name) for field in fields(SegmentMeta)}),
        frames=row.frames,
        video=read_bytes(shard, row.video_offset, row.video_size, row.key),
        audio=read_bytes(shard, row.audio_offset, row.audio_size, row.key),
    )


def read_bytes(shard: Path, start: int, size: int, key: str) -> bytes:
    """Exactly these bytes of a tar file. Raises MediaError naming the segment `key` where they are not there."""
    try:
        with shard.open("rb", buffering=0) as file:
            file.seek(start)
            content = file.read(size)
    except OSError as error:
        raise MediaError(f"{shard}: cannot be read: {error.strerror or error}") from error
    if len(content) != size:
        raise MediaError(f"{shard}: cut off in {key}. Copy it again, or prepare the data set again")
    return content
