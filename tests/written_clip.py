"""A clip through lsx's checks and its writer, without a model between; what is seen and heard in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.media.colours import EXACT
from lsx.media.encoding import EncodeOptions
from lsx.media.video_reader import VideoReader
from lsx.runtime.run_files import open_inputs, writer_like

__all__ = ["COUNT", "lag", "pictures", "samples", "write_media", "written"]

COUNT = 12
"""Frames of the clip."""


def write_media(folder: Path) -> Path:
    """clip.mp4 and sound.wav in `folder`, which is returned."""
    write_clip(folder / "clip.mp4", portrait_frames(COUNT), crf=1)
    write_wav(folder / "sound.wav", speech(COUNT / 25, 44100), 44100)
    return folder


def written(video: Path, audio: Path, output: Path, **options: Any) -> Path:
    """The video and the sound through lsx's checks and its writer, without a model between."""
    encode = EncodeOptions(**options)
    reader, sound, *_ = open_inputs(video, audio, output, encode=encode)
    assert isinstance(reader, VideoReader)
    assert sound is not None
    with writer_like(output, reader, encode, sound) as writer:
        for frame in reader.frames():
            writer.write(frame)
    return output


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        frames = (f.reformat(format="rgb24", interpolation=EXACT) for f in container.decode(video=0))
        return [np.asarray(frame.to_ndarray(), np.uint8) for frame in frames]


def samples(path: Path) -> NDArray[np.float64]:
    """The decoded sound, mono at 44.1 kHz, placed by its time stamps beside the picture, as a player does."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=44100)
    parts: list[NDArray[Any]] = []
    with av.open(str(path)) as container:
        first: float | None = None
        pictured = 0.0
        if container.streams.video:
            pictured = next(container.decode(video=0)).time or 0.0
            container.seek(0)
        for frame in container.decode(audio=0):
            first = (frame.time or 0.0) - pictured if first is None else first
            parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(frame)]
        parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(None)]
    lead = round((first or 0.0) * 44100)
    joined = np.concatenate(parts).astype(np.float64)
    return np.concatenate([np.zeros(lead), joined]) if lead > 0 else joined[-lead:]


def lag(one: NDArray[np.float64], other: NDArray[np.float64]) -> int:
    """Samples by which `other` is later than `one`."""
    size = min(len(one), len(other))
    spectrum = np.fft.rfft(one[:size], 2 * size).conj() * np.fft.rfft(other[:size], 2 * size)
    at = int(np.argmax(np.fft.irfft(spectrum)))
    return at - 2 * size if at > size else at
