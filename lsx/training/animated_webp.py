"""Faces as an animated WebP: every frame a picture of its own, found by a table at the file's end, each with a CRC.

A browser plays such a file, and 16 frames of it are read without any other. Why WebP: docs/training.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Literal, get_args

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.errors import MediaError, UsageError
from lsx.media.video_reader import FPS

__all__ = ["CODECS", "QUALITIES", "Quality", "animation_of", "decode_frames", "table_bytes", "table_of"]

Quality = Literal["lossless", "near"]
"""`lossless` keeps every level; `near` is WebP's lossy mode at 95. What both cost: docs/training.md."""
QUALITIES: tuple[Quality, ...] = get_args(Quality)
CODECS: dict[Quality, str] = {"lossless": "webp lossless", "near": "webp lossy 95"}
"""What data.json calls each quality."""

_MOST_EDGE = 2048
_LOSSY = 95
_ENTRY = 12  # bytes of the table: offset, size, CRC-32, each uint32
_NO_BLENDING = 2


def _check_face(face: Any, resolution: int) -> None:
    """Raises UsageError unless it is uint8 [resolution, resolution, 3]."""
    wrong = not isinstance(face, np.ndarray) or face.dtype != np.uint8
    if wrong or face.shape != (resolution, resolution, 3):
        given = f"{face.dtype}{list(face.shape)}" if isinstance(face, np.ndarray) else type(face).__name__
        raise UsageError(f"a face is {given}; every face must be uint8 [{resolution}, {resolution}, 3] RGB")


def animation_of(faces: Iterable[Frame], resolution: int, quality: Quality) -> tuple[bytes, int]:
    """The file's bytes and its number of frames. The same faces give the same bytes.

    faces : uint8 [resolution, resolution, 3] RGB each, at 25 a second. Raises UsageError.
    """
    if quality not in QUALITIES:
        raise UsageError(f"quality is {quality}; choose {' or '.join(QUALITIES)}")
    if not 16 <= resolution <= _MOST_EDGE:
        raise UsageError(f"resolution is {resolution}; give 16 to {_MOST_EDGE} pixels")
    edge = (resolution - 1).to_bytes(3, "little")
    head = _chunk(b"VP8X", bytes([_NO_BLENDING, 0, 0, 0]) + edge + edge) + _chunk(b"ANIM", bytes(6))
    parts, entries, place = [head], [], 12 + len(head)
    shown = bytes(6) + edge + edge + (1000 // FPS).to_bytes(3, "little") + bytes([_NO_BLENDING])
    encode = _lossless(resolution) if quality == "lossless" else _lossy
    for face in faces:
        _check_face(face, resolution)
        picture = encode(face)[12:]  # its chunks, without the still file's own header
        part = _chunk(b"ANMF", shown + picture)
        entries.append((place + 8 + len(shown), len(picture), zlib.crc32(picture)))
        parts.append(part)
        place += len(part)
    if not entries:
        raise UsageError("a segment has no faces; give one at least")
    parts.append(_chunk(b"LSXT", np.array(entries, dtype="<u4").tobytes()))  # players skip chunks that they do not know
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body, len(entries)


def _chunk(tag: bytes, content: bytes) -> bytes:
    return tag + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def _lossless(resolution: int) -> Any:
    """An encoder of still files through FFmpeg, which can be told to be quick; OpenCV's takes ten times as long."""
    context: Any = av.CodecContext.create("libwebp", "w")
    context.width = context.height = resolution
    context.pix_fmt = "bgra"
    context.framerate = FPS
    context.options = {"lossless": "1", "compression_level": "0", "quality": "50"}

    def encode(face: Frame) -> bytes:
        picture: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(face), format="rgb24")
        return b"".join(bytes(packet) for packet in context.encode(picture.reformat(format="bgra")))

    return encode


def _lossy(face: Frame) -> bytes:
    return bytes(cv2.imencode(".webp", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _LOSSY])[1])


def table_bytes(frames: int) -> int:
    """Length of the table at the end of a file of `frames` frames."""
    return frames * _ENTRY


def table_of(content: bytes) -> NDArray[np.uint32]:
    """[frames, 3]: where each picture begins in the file, its length, its CRC-32."""
    return np.frombuffer(content, dtype="<u4").reshape(-1, 3)


def decode_frames(content: bytes, table: NDArray[np.uint32], resolution: int, name: str) -> Frame:
    """Faces uint8 [n, resolution, resolution, 3] RGB of the rows of `table`.

    content : the file from the first of those pictures to the end of the last. Raises MediaError, which names `name`.
    """
    faces = np.empty((len(table), resolution, resolution, 3), dtype=np.uint8)
    first = int(table[0, 0])
    for index, (place, size, crc) in enumerate(table.tolist()):
        picture = content[place - first : place - first + size]
        still = b"RIFF" + (4 + size).to_bytes(4, "little") + b"WEBP" + picture
        decoded: Any = None
        if zlib.crc32(picture) == crc:
            decoded = cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is None or decoded.shape != faces.shape[1:]:
            raise MediaError(f"{name} is damaged. See what else is: lsx data inspect DATA --verify, and copy it again")
        faces[index] = decoded
    return faces
