"""Video out: one H.264 and AAC encode, beside the target, renamed when whole."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from secrets import token_hex
from typing import Any

import av
import numpy as np

from lsx.errors import OutputError, UsageError
from lsx.runtime.alignment import Frame
from lsx.runtime.sound import SoundReader
from lsx.runtime.video import EXACT, FPS, ColourTags, reason_of

__all__ = ["CONTAINERS", "VideoWriter", "check_output"]

CONTAINERS = (".mp4", ".mov", ".mkv")


def check_output(path: Path, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a target that cannot be written, before any work is done. Raises UsageError or OutputError."""
    if path.suffix.lower() not in CONTAINERS:
        raise UsageError(f"{path}: the output must end in {', '.join(CONTAINERS)}")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder. Create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path.parent}: not writable")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path}: is an input of this run; give another name")


def _locked(partial: Path) -> int | None:
    """A new file at `partial`, locked for as long as this process lives and keeps the descriptor that is returned.

    By the lock a later run knows a leftover from a file that is being written, also across containers and where
    process numbers are used again. Raises OutputError.
    """
    try:
        import fcntl

        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on this system
        return None
    except OSError as error:
        raise OutputError(f"{partial.parent}: cannot be written: {error.strerror}") from error
    return descriptor


def _remove_leftovers(path: Path) -> None:
    """Remove what runs into `path` left that were killed: partial files that nobody holds, of processes that ended."""
    try:
        import fcntl
    except ImportError:
        return
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)(-[0-9a-f]{{8}})?{re.escape(path.suffix)}")
    for other in path.parent.iterdir():
        match = pattern.fullmatch(other.name)
        if match is None or (match[2] is None and _lives(int(match[1]))):  # older names have no lock behind them
            continue
        with suppress(OSError):
            descriptor = os.open(other, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()
            finally:
                os.close(descriptor)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it lives, and is another user's
    return True


class VideoWriter:
    """Encodes frames and sound into `path`. Use as a context manager: the file appears when the block ends well.

    size : width and height in pixels; crf : x264's quality, 0..51; sound : encoded alongside, never ahead.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        colours: ColourTags,
        pixel_aspect: Fraction = Fraction(1),
        crf: int = 18,
        sound: SoundReader | None = None,
    ) -> None:
        self.path = path
        _remove_leftovers(path)
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}-{token_hex(4)}{path.suffix}")
        self._lock = _locked(self._partial)
        self._colours = colours
        self._count = 0
        self._samples = 0
        self._container: Any = None
        try:
            self._open(size, pixel_aspect, crf, sound)
        except BaseException:
            self._discard()
            raise

    def _open(self, size: tuple[int, int], pixel_aspect: Fraction, crf: int, sound: SoundReader | None) -> None:
        with self._errors():
            options = {"movflags": "+faststart"} if self.path.suffix.lower() != ".mkv" else {}
            self._container = av.open(str(self._partial), "w", options=options)
            self._video = self._add_video(size, pixel_aspect, crf)
            self._audio = None if sound is None else self._add_audio(sound)
            # Opened here, so that the encoder's frame size is known.
            if self._audio is not None:
                self._audio.codec_context.open()
        self._sound: Iterator[Any] = iter(())
        if sound is not None and self._audio is not None:
            self._sound = sound.frames(self._audio.codec_context.frame_size or 1024)

    def _add_video(self, size: tuple[int, int], aspect: Fraction, crf: int) -> Any:
        stream = self._container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": "medium"})
        stream.width, stream.height = size
        # 4:2:0 needs even sizes; an odd one keeps every pixel in 4:4:4.
        stream.pix_fmt = "yuv420p" if size[0] % 2 == 0 and size[1] % 2 == 0 else "yuv444p"
        context = stream.codec_context
        context.time_base = Fraction(1, FPS)
        context.sample_aspect_ratio = aspect
        context.color_range = self._colours.levels
        context.colorspace = self._colours.space if self._colours.space else 2
        context.color_primaries = self._colours.primaries
        context.color_trc = self._colours.transfer
        return stream

    def _add_audio(self, sound: SoundReader) -> Any:
        stream = self._container.add_stream("aac", rate=sound.rate, layout=sound.layout)
        stream.codec_context.format = "fltp"
        stream.codec_context.bit_rate = 96_000 if sound.layout == "mono" else 192_000
        return stream

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            number = getattr(error, "errno", None)
            advice = "the disk is full. Free space, or write elsewhere" if number == errno.ENOSPC else reason_of(error)
            raise OutputError(f"{self.path}: cannot be written: {advice}") from error

    def write(self, frame: Frame) -> None:
        """Append a frame uint8 [height, width, 3] RGB, and the sound up to its end."""
        picture: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(
            format=self._video.pix_fmt,
            src_color_range=2,
            dst_colorspace=self._colours.matrix,
            dst_color_range=self._colours.levels,
            interpolation=EXACT,
        )
        picture.pts, picture.time_base = self._count, Fraction(1, FPS)
        self._count += 1
        with self._errors():
            self._container.mux(self._video.encode(picture))
        self._write_sound(Fraction(self._count, FPS))

    def _write_sound(self, until: Fraction | None) -> None:
        """Encode sound up to `until` seconds, or all that is left."""
        if self._audio is None:
            return
        rate = self._audio.codec_context.sample_rate
        while until is None or Fraction(self._samples, rate) < until:
            frame = next(self._sound, None)
            if frame is None:
                return
            frame.pts, frame.time_base = self._samples, Fraction(1, rate)
            self._samples += frame.samples
            with self._errors():
                self._container.mux(self._audio.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write_sound(None)
                with self._errors():
                    self._container.mux(self._video.encode(None))
                    if self._audio is not None:
                        self._container.mux(self._audio.encode(None))
                    self._container.close()
                    self._partial.replace(self.path)
        finally:
            self._discard()

    def _discard(self) -> None:
        """Close what is open and remove the partial file, if it is still there."""
        with suppress(av.error.FFmpegError, OSError):  # it is thrown away: only the first error counts
            if self._container is not None:
                self._container.close()
        self._partial.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
