"""Video in: decoded once, upright, as RGB frames on a grid of 25 a second, forwards or backwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from lsx.errors import MediaError
from lsx.runtime.alignment import Frame

__all__ = ["EXACT", "FPS", "ColourTags", "VideoReader", "open_media", "ping_pong"]

FPS = 25
"""Frames per second of everything that the model sees and makes."""

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
"""How colours are converted: to RGB and back leaves luma as it was; FFmpeg's default darkens it by a level."""

_REVERSE_BYTES = 256 * 2**20  # frames held while playing backwards
_UNSPECIFIED = 2  # in FFmpeg's enumerations of colour spaces, primaries and transfer characteristics


def ping_pong(index: int, count: int) -> int:
    """Source frame of output frame `index`: 0..count-1, count-1..0, 0..count-1, ..."""
    position = index % (2 * count)
    return min(position, 2 * count - 1 - position)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourTags:
    """How a stream's samples mean colours: FFmpeg's numbers, as tagged in the file."""

    space: int = _UNSPECIFIED
    range: int = 0
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED

    @property
    def matrix(self) -> int:
        """The matrix to convert with: the tagged one, BT.601 where none is tagged (FFmpeg's own default)."""
        return self.space if self.space in (1, 4, 5, 6, 7, 9) else 5

    @property
    def levels(self) -> int:
        """The range to convert with: the tagged one, limited (MPEG) where none is."""
        return self.range or 1


def open_media(path: Path) -> Any:
    """Open a media file for reading. Raises MediaError with the reason."""
    if not path.exists():
        raise MediaError(f"{path}: no such file")
    if path.is_dir():
        raise MediaError(f"{path}: is a folder; give a file")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: not a readable media file ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """FFmpeg's or the system's own word for what went wrong."""
    return str(getattr(error, "strerror", None) or error)


class VideoReader:
    """The video stream of a file.

    Construction reads the packets' time stamps once (nothing is decoded), so a truncated file is refused here and
    frames can be placed by their times: frame k of the grid is the last source frame that rounds to k or before.

    Raises MediaError : no such file, not a video, no frames, truncated.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_media(self.path) as container:
            stream = self._stream(container)
            self._scan(container, stream)
            self._describe(container)
        slots = np.floor((self._times - self._times[0]) * FPS + Fraction(1, 2)).astype(np.int64)
        self._slots = np.maximum.accumulate(slots)
        end = (self._times[-1] - self._times[0] + self._last_duration) * FPS
        self.count = max(int(end + Fraction(1, 2)), int(self._slots[-1]) + 1)
        """Frames on the grid of 25 a second."""

    def _stream(self, container: Any) -> Any:
        if not container.streams.video:
            raise MediaError(f"{self.path}: no video stream in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return stream

    def _scan(self, container: Any, stream: Any) -> None:
        stamps: list[int | None] = []
        durations: dict[int | None, int] = {}
        stored = 0
        try:
            for packet in container.demux(stream):
                stored += packet.size > 0
                if packet.size == 0 or packet.is_discard:  # an edit list leaves frames out that are stored
                    continue
                if packet.is_corrupt and stream.frames:
                    raise MediaError(f"{self.path}: damaged or cut off after {len(stamps)} frames")
                stamps.append(packet.pts)
                durations[packet.pts] = packet.duration or 0
        except av.error.FFmpegError as error:
            raise MediaError(f"{self.path}: damaged after {len(stamps)} frames ({reason_of(error)})") from error
        if not stamps:
            raise MediaError(f"{self.path}: no frames in its video stream")
        if stored < stream.frames:
            raise MediaError(
                f"{self.path}: cut off: {stored} of {stream.frames} frames are there. Copy or download it again"
            )
        rate = stream.average_rate or stream.guessed_rate or Fraction(FPS)
        known = [stamp for stamp in stamps if stamp is not None]
        self.seekable = len(known) == len(stamps) and stream.time_base is not None
        """Whether frames carry times; where they do not, they are counted at the stream's rate."""
        if self.seekable:
            self._stamps = np.unique(np.array(known, dtype=np.int64))
            base = Fraction(stream.time_base)
            self._times = np.array([stamp * base for stamp in self._stamps.tolist()], dtype=object)
            duration = durations.get(int(self._stamps[-1]), 0) * base
        else:
            self._stamps = np.arange(len(stamps), dtype=np.int64)
            self._times = np.array([Fraction(i) / rate for i in range(len(stamps))], dtype=object)
            duration = Fraction(0)
        self._last_duration = duration or 1 / Fraction(rate)

    def _describe(self, container: Any) -> None:
        with open_media(self.path) as again:
            stream = self._stream(again)
            frame = next(self._decoded(again, stream), None)
            if frame is None:
                raise MediaError(f"{self.path}: no frame of it can be decoded")
            self.rotation = int(frame.rotation) % 360
            """Degrees, counter-clockwise, that the frames were turned by to be upright."""
            quarter = self.rotation % 180 == 90
            self.width, self.height = (frame.height, frame.width) if quarter else (frame.width, frame.height)
            context = stream.codec_context
            self.colours = ColourTags(
                space=int(frame.colorspace),
                range=int(frame.color_range),
                primaries=int(context.color_primaries),
                transfer=int(context.color_trc),
            )
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self.pixel_aspect = 1 / aspect if quarter and aspect else aspect or Fraction(1)
        del container

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        decoded = 0
        try:
            for frame in container.decode(stream):
                yield frame
                decoded += 1
        except av.error.FFmpegError as error:
            raise MediaError(f"{self.path}: damaged after {decoded} frames ({reason_of(error)})") from error

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Grid frames start..stop in order: new arrays, uint8 [height, width, 3] RGB, upright, contiguous."""
        stop = self.count if stop is None else min(stop, self.count)
        grid = np.arange(start, stop)
        wanted = np.searchsorted(self._slots, grid, side="right") - 1
        if not len(wanted):
            return
        position = 0
        latest: Any = None
        with open_media(self.path) as container:
            stream = self._stream(container)
            if start > 0 and self.seekable:
                container.seek(int(self._stamps[wanted[0]]), stream=stream, backward=True)
            for number, frame in enumerate(self._decoded(container, stream)):
                index = number
                if self.seekable:
                    if frame.pts is None:
                        continue
                    index = int(np.searchsorted(self._stamps, frame.pts))
                # A frame is shown until the next one's slot: emit what the previous one still covers.
                while position < len(wanted) and latest is not None and wanted[position] < index:
                    yield self._rgb(latest)
                    position += 1
                if position >= len(wanted):
                    return
                if index <= wanted[position]:
                    latest = frame
            while position < len(wanted) and latest is not None:
                yield self._rgb(latest)
                position += 1
        if latest is None:
            raise MediaError(f"{self.path}: no frame can be decoded from {start / FPS:.2f} s on")

    def backwards(self) -> Iterator[Frame]:
        """All grid frames from the last to the first; a bounded number of them is held at a time."""
        held = max(_REVERSE_BYTES // (self.width * self.height * 3), 8)
        for stop in range(self.count, 0, -held):
            yield from reversed(list(self.frames(max(stop - held, 0), stop)))

    def ping_pong(self, length: int) -> Iterator[tuple[int, Frame]]:
        """`length` frames with their grid index: forwards, backwards, forwards, ..."""
        made = 0
        while made < length:
            forwards = (made // self.count) % 2 == 0
            frames = self.frames(0, length - made) if forwards else self.backwards()
            for frame in frames:
                if made == length:
                    return
                yield ping_pong(made, self.count), frame
                made += 1

    def _rgb(self, frame: Any) -> Frame:
        array: NDArray[Any] = frame.reformat(
            format="rgb24",
            src_colorspace=self.colours.matrix,
            src_color_range=self.colours.levels,
            dst_color_range=2,
            interpolation=EXACT,
        ).to_ndarray()
        if self.rotation:
            array = np.rot90(array, self.rotation // 90)
        return np.ascontiguousarray(array)
