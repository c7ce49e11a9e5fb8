"""Video and sound as a caller has them: paths, open files, arrays."""

from __future__ import annotations

import shutil
import tempfile
import wave
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.tensors import Frame, described
from lsx.errors import MediaError, UsageError
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader, as_samples
from lsx.media.colours import BT709, ColourTags
from lsx.media.open_files import check_open
from lsx.media.video_reader import VideoReader, ping_pong

__all__ = [
    "ArraySound",
    "ArrayVideo",
    "SoundInput",
    "VideoInput",
    "VideoSource",
    "open_sound",
    "open_video",
    "rate_of_frames",
]


class VideoSource(Protocol):
    """Frames of one size, on the grid of 25 a second."""

    width: int
    height: int
    colours: ColourTags
    """The tags of an output of these frames."""
    pixel_aspect: Fraction
    count: int
    """Frames on the grid."""
    clock: FrameClock
    """The times at which they are shown."""

    def at(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """The frames `indices`, in that order, each with its index: arrays that may be painted on."""

    def ping_pong(self, length: int) -> Iterator[tuple[int, Frame]]:
        """`length` frames with their grid index: forwards, backwards, forwards, ..."""


VideoInput = Path | str | BinaryIO | NDArray[np.uint8] | Sequence[Frame] | VideoSource
"""A path, an open binary file, frames uint8 [frames, height, width, 3] RGB at 25 a second, or a VideoReader."""

SoundInput = Path | str | BinaryIO | NDArray[np.int16] | NDArray[np.float32] | SoundReader
"""A path, an open binary file, samples int16 or float32 (-1..1) [samples], mono at 16 kHz, or a SoundReader."""


def open_video(video: Any, rate: Fraction | None = MODEL_CLOCK.rate) -> VideoSource:
    """The frames of a VideoInput.

    rate : frames a second, of arrays too; None is a file's own. What is opened already keeps its.

    Raises UsageError for any other type, dtype or shape, MediaError for what is no video.
    """
    if isinstance(video, VideoReader | ArrayVideo):
        return video
    if isinstance(video, Path | str):
        return VideoReader(video, rate)
    if hasattr(video, "read"):
        copy = _copied(video, "video")
        reader = VideoReader(copy.name, rate)
        reader.kept = copy
        return reader
    if isinstance(video, np.ndarray | Sequence) and not isinstance(video, bytes | bytearray):
        return ArrayVideo(video, rate_of_frames(rate))
    raise UsageError(
        f"video is of type {type(video).__name__}; give a path, an open binary file, or frames uint8 "
        "[frames, height, width, 3]"
    )


def rate_of_frames(rate: Fraction | None) -> Fraction:
    """The rate of frames in memory. Raises UsageError for None, the frames' own: they have none."""
    if rate is None:
        raise UsageError("fps is source, and frames have no times of their own; give their number a second")
    return rate


def open_sound(sound: Any) -> SoundReader:
    """The sound of a SoundInput. Raises UsageError for another type, dtype or shape, MediaError where it is none."""
    if isinstance(sound, SoundReader):
        return sound
    if isinstance(sound, Path | str):
        return SoundReader(sound)
    if hasattr(sound, "read"):
        copy = _copied(sound, "sound")
        reader = SoundReader(copy.name)
        reader.kept = copy
        return reader
    if isinstance(sound, np.ndarray):
        return ArraySound(sound)
    raise UsageError(
        f"audio is of type {type(sound).__name__}; give a path, an open binary file, or samples int16 or float32, "
        "mono at 16 kHz"
    )


def _copied(file: Any, kind: str) -> IO[bytes]:
    """A temporary file of `file`'s content, gone when nobody holds it: media are read more than once, and by seeking.

    Raises UsageError for a file that is closed, of text, or not open for reading.
    """
    check_open(file, f"the {kind} file", "reading")
    # Not a context manager: its owner is the reader that keeps it.
    copy = tempfile.NamedTemporaryFile(prefix=f"lsx-{kind}-")  # noqa: SIM115
    try:
        shutil.copyfileobj(file, copy)
    except TypeError as error:
        raise UsageError(f"the {kind} file gives text; open it in binary mode") from error
    copy.flush()
    return copy


class ArrayVideo:
    """Frames in memory: uint8 [frames, height, width, 3] RGB, or a sequence of frames. rate : of them a second.

    Raises UsageError for another shape or dtype, MediaError for no frame at all.
    """

    pixel_aspect = Fraction(1)
    colours = BT709
    """What an output of RGB frames is tagged with."""

    def __init__(self, frames: NDArray[np.uint8] | Sequence[Frame], rate: Fraction | int = MODEL_CLOCK.rate) -> None:
        self.clock = FrameClock.at_rate(rate)
        first = _first_frame(frames)
        self._frames = frames
        self.count = len(frames)
        self.height, self.width = first.shape[:2]

    def at(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """The frames `indices` with their index, each a copy: a run paints on them."""
        for index in indices.tolist():
            yield index, np.array(self._frames[index])

    def ping_pong(self, length: int) -> Iterator[tuple[int, Frame]]:
        """`length` frames with their index: forwards, backwards, forwards, ..."""
        return self.at(ping_pong(np.arange(length), self.count))


def _first_frame(frames: NDArray[np.uint8] | Sequence[Frame]) -> Frame:
    if isinstance(frames, np.ndarray) and frames.ndim != 4:
        raise UsageError(f"the frames are {described(frames)}; give uint8 [frames, height, width, 3] RGB")
    if not len(frames):
        raise MediaError("no frames were given")
    wrong = UsageError(f"frame 0 is {described(frames[0])}; give uint8 [height, width, 3] RGB")
    try:
        first = np.asarray(frames[0])
    except (TypeError, ValueError) as error:
        raise wrong from error
    if first.dtype != np.uint8 or first.ndim != 3 or first.shape[2] != 3:
        raise wrong
    return first


class ArraySound(SoundReader):
    """Samples in memory, mono at 16 kHz: int16, or float32 in -1..1. Raises what `as_samples` does.

    The model hears the samples as they are; an output's soundtrack is encoded from 16 bits of them.
    """

    def __init__(self, samples: Any) -> None:
        self._array = as_samples(samples)
        pcm = self._array
        if pcm.dtype == np.float32:
            pcm = np.clip(np.round(pcm * 32767), -32768, 32767).astype(np.int16)
        copy = tempfile.NamedTemporaryFile(prefix="lsx-sound-", suffix=".wav")  # noqa: SIM115  (kept with this)
        with wave.open(copy.name, "wb") as target:
            target.setnchannels(1)
            target.setsampwidth(2)
            target.setframerate(SAMPLE_RATE)
            target.writeframes(pcm.astype("<i2").tobytes())
        super().__init__(copy.name)
        self.kept = copy

    def samples(self) -> NDArray[np.int16] | NDArray[np.float32]:
        """The very samples that were given."""
        return self._array
