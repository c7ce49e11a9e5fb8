"""Frames of a live picture, each encoded as it comes: JPEG, or fragments of H.264 in MP4 without any delay."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from lsx.core.clock import FPS
from lsx.core.tensors import Frame
from lsx.media.colours import BT709

__all__ = ["H264Fragments", "jpeg"]

_MOST_CRF = 51


def jpeg(frame: Frame, quality: int) -> bytes:
    """A frame uint8 [H, W, 3] RGB as JPEG of that quality, 1 to 100."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(encoded).tobytes()


class _Written(io.RawIOBase):
    """What a muxer has written. It cannot be gone back in."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += data
        return len(data)


class H264Fragments:
    """Fragmented MP4 of one H.264 track: every frame is a fragment of its own, the first comes with the file's head.

    A browser's MediaSource plays them one after the other. A key frame comes every second. FFmpeg's muxer gives a
    fragment when the next one begins, a frame late; here it is given at once.

    Source: ISO/IEC 14496-12, movie fragments; 14496-15, H.264 in them.
    """

    def __init__(self, width: int, height: int, quality: int) -> None:
        """width, height : of the frames; odd ones are cut by a pixel. quality : 1 to 100, from CRF 51 to 1."""
        self._width, self._height = width - width % 2, height - height % 2
        crf = max(round(_MOST_CRF * (1 - quality / 100)), 1)
        head = _Written()
        flags = {"movflags": "empty_moov+default_base_moof+skip_trailer"}
        with av.open(head, "w", format="mp4", options=flags) as container:
            stream = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
            BT709.tag(stream.codec_context)
            stream.gop_size = FPS
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": str(crf)}
            container.start_encoding()
            self._encoder: Any = stream.codec_context
            self._ticks = int(1 / (FPS * Fraction(stream.time_base or Fraction(1, FPS))))
            self._head = bytes(head.content)
        self._count = 0

    def add(self, frame: Frame) -> bytes:
        """The fragment of the next frame, uint8 [H, W, 3] RGB."""
        picture = BT709.picture(frame[: self._height, : self._width], "yuv420p")
        picture.pts, picture.time_base = self._count, Fraction(1, FPS)
        fragments = [self._fragment(bytes(packet), packet.is_keyframe) for packet in self._encoder.encode(picture)]
        head, self._head = self._head, b""
        return head + b"".join(fragments)

    def _fragment(self, packet: bytes, is_key: bool) -> bytes:
        sample = b"".join(struct.pack("!I", len(unit)) + unit for unit in _units(packet))
        self._count += 1
        start = (self._count - 1) * self._ticks

        def moof(offset: int) -> bytes:
            flags = 0x02000000 if is_key else 0x01010000
            run = _box(b"trun", struct.pack("!IIiIII", 0x701, 1, offset, self._ticks, len(sample), flags))
            track = _box(b"tfhd", struct.pack("!II", 0x020000, 1)) + _box(b"tfdt", struct.pack("!IQ", 1 << 24, start))
            return _box(b"moof", _box(b"mfhd", struct.pack("!II", 0, self._count)) + _box(b"traf", track + run))

        return moof(len(moof(0)) + 8) + _box(b"mdat", sample)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack("!I", 8 + len(content)) + kind + content


def _units(packet: bytes) -> Iterator[bytes]:
    """The NAL units of a packet in the form of Annex B, without their start codes."""
    for unit in re.split(rb"\x00\x00\x01", packet)[1:]:
        yield unit.rstrip(b"\x00")
