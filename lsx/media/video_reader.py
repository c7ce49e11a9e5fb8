"""Video in: decoded once, upright, as RGB frames on a grid, 25 a second or the file's own, forwards or backwards."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import FPS, FrameClock
from lsx.core.keywords import check_path, check_whole, plain_number
from lsx.core.tensors import Frame
from lsx.errors import MediaError, UsageError
from lsx.media.colours import EXACT, ColourTags
from lsx.media.deinterlacing import deinterlaced
from lsx.media.dithering import dithered
from lsx.media.frame_order import frame_numbers, stretches
from lsx.media.frame_times import own_clock
from lsx.media.opening import decoding, open_media

__all__ = [
    "FPS",
    "VideoReader",
    "ping_pong",
]

_LONGEST_GAP = 120  # seconds that one frame may be shown
_MOST_PIXELS = 8192 * 8192  # of a frame: a damaged header may say anything
_REVERSE_BYTES = 256 * 2**20  # frames held while playing backwards
_HDR = {16: "PQ, SMPTE ST 2084", 18: "HLG, ARIB STD-B67"}


def ping_pong(index: Any, count: int) -> Any:
    """Source frame of output frame `index`, a number or an array: 0..count-1, count-1..0, 0..count-1, ..."""
    position = index % (2 * count)
    return np.minimum(position, 2 * count - 1 - position)


def _check_rate(rate: Any) -> None:
    number = plain_number(rate)
    if isinstance(number, bool) or not isinstance(number, int | float | Fraction) or not 0 < number < np.inf:
        raise UsageError(f"rate is {rate!r}; give a Fraction of frames a second, or None for the file's own times")


def _pixels(picture: Any, *, own: bool) -> Frame:
    """The pixels of an RGB picture, uint8 [height, width, 3], which may be painted on.

    own : whether its memory is nobody else's. Then it is used as it is, where rows lie one behind the other: new memory
    for every frame costs more than copying it.
    """
    plane = picture.planes[0]
    if not own or plane.line_size != 3 * picture.width:
        return np.asarray(picture.to_ndarray(), np.uint8)
    return np.frombuffer(plane, np.uint8).reshape(picture.height, picture.width, 3)


class VideoReader:
    """The video stream of a file.

    Construction reads the packets' time stamps once (nothing is decoded), so a truncated file is refused here and
    frames can be placed by their times: frame k of the grid is the last source frame that rounds to k or before.

    Raises UsageError : no path, no rate; MediaError : no such file, not a video, no frames, truncated.

    Examples
    --------
    >>> from lsx import VideoReader
    >>> video = VideoReader(VIDEO)
    >>> video.count, video.width, video.height
    (16, 640, 480)
    """

    kept: Any = None
    """What must live as long as this does: the temporary file that `path` names, where it is one."""

    def __init__(self, path: Path | str, rate: Fraction | None = Fraction(FPS)) -> None:
        """rate : of the grid, frames a second; None is the file's own frames, each at its own time."""
        check_path("video", path)
        if rate is not None:
            _check_rate(rate)
        self.path = Path(path)
        with open_media(self.path) as container:
            stream = self._stream(container)
            self._scan(container, stream)
            self._describe(container)
        self.start: Fraction = self._times[0] if self.seekable else Fraction(0)
        """Second of the file's own time at which the first frame is shown."""
        times = self._times - self._times[0]
        if rate is None:
            self._slots = np.arange(len(times))
            self.count = len(times)
            """Frames on the grid."""
            self.clock = own_clock(times.tolist(), self._last_duration)
            """When the grid's frames are shown."""
            return
        self.clock = FrameClock.at_rate(rate)
        slots = np.floor(times * rate + Fraction(1, 2)).astype(np.int64)
        self._slots = np.maximum.accumulate(slots)
        end = (times[-1] + self._last_duration) * rate
        self.count = max(int(end + Fraction(1, 2)), int(self._slots[-1]) + 1)

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
        with decoding(self.path, lambda: f"after {len(stamps)} frames"):
            for packet in container.demux(stream):
                stored += packet.size > 0
                if packet.size == 0 or packet.is_discard:  # an edit list leaves frames out that are stored
                    continue
                if packet.is_corrupt and stream.frames:
                    raise MediaError(f"{self.path}: damaged or cut off after {len(stamps)} frames")
                stamps.append(packet.pts)
                durations[packet.pts] = packet.duration or 0
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
        self._check_times()

    def _check_times(self) -> None:
        """Refuse time stamps that no camera makes: the grid would hold one frame for hours."""
        gaps = np.diff(self._times) if len(self._times) > 1 else np.zeros(1, dtype=object)
        worst = max([*gaps.tolist(), self._last_duration])
        if worst > _LONGEST_GAP:
            at = float(self._times[int(np.argmax(gaps))] - self._times[0])
            raise MediaError(
                f"{self.path}: damaged at {at:.2f} s: its time stamps leap by {float(worst):.0f} s. Repair it: "
                "ffmpeg -i FILE -c copy REPAIRED.mp4"
            )

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
            self._check_transfer()
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self.pixel_aspect = 1 / aspect if quarter and aspect else aspect or Fraction(1)
        del container

    def _check_transfer(self) -> None:
        """Refuse HDR: its curve taken for the usual one gives a picture that looks washed out."""
        name = _HDR.get(self.colours.transfer)
        if name is not None:
            raise MediaError(
                f"{self.path}: HDR video ({name}) is not read. Convert it to SDR first: ffmpeg -i IN -vf "
                "zscale=t=linear:npl=100,tonemap=hable,zscale=p=bt709:t=bt709:m=bt709:r=tv,format=yuv420p OUT.mp4"
            )

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        decoded, seconds = 0, 0.0

        def where() -> str:
            return f"at {seconds:.2f} s, after {decoded} frames"

        with decoding(self.path, where):
            context = stream.codec_context
            if context.width * context.height > _MOST_PIXELS:
                raise MediaError(
                    f"{self.path}: frames of {context.width} x {context.height}; at most 8192 x 8192 are read"
                )
            for frame in deinterlaced(container.decode(stream), stream):
                yield frame
                decoded += 1
                seconds = frame.time or seconds

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Grid frames start..stop in order: new arrays, uint8 [height, width, 3] RGB, upright, contiguous.

        Examples
        --------
        >>> from lsx import VideoReader
        >>> [frame.shape for frame in VideoReader(VIDEO).frames(14)]
        [(480, 640, 3), (480, 640, 3)]
        """
        check_whole("start", start)
        if stop is not None:
            check_whole("stop", stop)
        return self._forwards(np.arange(start, self.count if stop is None else min(stop, self.count)))

    def _forwards(self, grid: NDArray[np.int64]) -> Iterator[Frame]:
        """The grid frames `grid`, which never falls."""
        slots = np.searchsorted(self._slots, grid, side="right") - 1
        if not len(slots):
            return
        position = 0
        latest: Any = None
        with open_media(self.path) as container:
            stream = self._stream(container)
            if grid[0] > 0 and self.seekable:
                container.seek(int(self._stamps[slots[0]]), stream=stream, backward=True)
            for number, frame in enumerate(self._decoded(container, stream)):
                index = number
                if self.seekable:
                    if frame.pts is None:
                        continue
                    index = int(np.searchsorted(self._stamps, frame.pts))
                # A frame is shown until the next one's slot: emit what the previous one still covers.
                while position < len(slots) and latest is not None and slots[position] < index:
                    yield self._rgb(latest)
                    position += 1
                if position >= len(slots):
                    return
                if index <= slots[position]:
                    latest = frame
            while position < len(slots) and latest is not None:
                yield self._rgb(latest)
                position += 1
        if latest is None:
            raise MediaError(
                f"{self.path}: no frame can be decoded from {float(self.clock.seconds(int(grid[0]))):.2f} s on"
            )

    def at(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """The grid frames `indices`, each with its index, in that order: new arrays, also where one comes again.

        A stretch that rises is decoded once; of one that falls a bounded number of frames is held at a time.

        Examples
        --------
        >>> import numpy as np
        >>> from lsx import VideoReader
        >>> [index for index, frame in VideoReader(VIDEO).at(np.array([3, 9, 8]))]
        [3, 9, 8]
        """
        return self._in_order(frame_numbers(indices))

    def _in_order(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        held = max(_REVERSE_BYTES // (self.width * self.height * 3), 8)
        for falls, stretch in stretches(indices):
            if not falls:
                yield from zip(stretch.tolist(), self._forwards(stretch), strict=True)
                continue
            for start in range(0, len(stretch), held):
                block = stretch[start : start + held]
                yield from zip(block.tolist(), reversed(list(self._forwards(block[::-1]))), strict=True)

    def ping_pong(self, length: int) -> Iterator[tuple[int, Frame]]:
        """`length` frames with their grid index: forwards, backwards, forwards, ...

        Examples
        --------
        >>> from lsx import VideoReader
        >>> [index for index, frame in VideoReader(VIDEO).ping_pong(20)][13:]
        [13, 14, 15, 15, 14, 13, 12]
        """
        check_whole("length", length)
        return self.at(ping_pong(np.arange(length), self.count))

    def _rgb(self, frame: Any) -> Frame:
        quarter = self.rotation % 180 == 90
        size = (self.height, self.width) if quarter else (self.width, self.height)
        deep = frame.format.components[0].bits > 8
        converted = frame.reformat(
            *size,  # of the first frame: a stream may change it on the way
            format="rgb48le" if deep else "rgb24",
            src_colorspace=self.colours.matrix,
            src_color_range=self.colours.levels,
            dst_color_range=2,
            interpolation=EXACT,
        )
        array: Any = dithered(converted.to_ndarray()) if deep else _pixels(converted, own=converted is not frame)
        if self.rotation:
            array = np.rot90(array, self.rotation // 90)
        return np.ascontiguousarray(array)
