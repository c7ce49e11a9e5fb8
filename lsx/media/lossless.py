"""Frames to a file without loss: every value of every pixel comes back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from lsx.core.clock import FrameClock
from lsx.core.tensors import Frame
from lsx.media.opening import encoding_to

__all__ = ["LosslessWriter"]


class LosslessWriter:
    """Writes frames uint8 [height, width, 3] RGB as FFV1, each a key frame, in Matroska. Use as a context manager.

    Matroska rounds times to milliseconds: who needs them exactly keeps the clock besides. Raises OutputError.
    """

    def __init__(self, path: Path, size: tuple[int, int], clock: FrameClock) -> None:
        """size : width and height in pixels; clock : when the frames are shown."""
        self._path, self._clock = path, clock
        self._count = 0
        with encoding_to(path):
            self._container: Any = av.open(str(path), "w", format="matroska")
            self._stream = self._container.add_stream("ffv1", rate=clock.rate.limit_denominator(1001 * 240))
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "bgr0"
        self._stream.codec_context.time_base = Fraction(1, 1000)
        self._stream.codec_context.options = {"level": "3", "slices": "4", "g": "1"}

    def write(self, frame: Frame) -> None:
        """Append a frame."""
        picture = av.VideoFrame.from_ndarray(frame, "rgb24").reformat(format="bgr0")
        picture.pts = round(self._clock.seconds(self._count) * 1000)
        picture.time_base = Fraction(1, 1000)
        self._count += 1
        self._mux(picture)

    def _mux(self, picture: Any) -> None:
        with encoding_to(self._path):
            self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> LosslessWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self._mux(None)
        self._container.close()
