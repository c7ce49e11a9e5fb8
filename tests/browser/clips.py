"""Small media files that a browser plays: a video, a sound, and what stands for a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

__all__ = ["SECONDS", "write_sound", "write_video"]

SECONDS = 2
_RATE, _SIZE = 25, 128
_SOUND_RATE = 16000


def _tone(hertz: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    times = np.arange(SECONDS * _SOUND_RATE) / _SOUND_RATE
    return np.asarray(np.sin(2 * np.pi * hertz * times) * 8000, dtype=np.int16)


def write_video(path: Path, colour: tuple[int, int, int]) -> Path:
    """Two seconds of H.264 with AAC: a bar that moves over one colour."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=_RATE, options={"crf": "28"})
        stream.width = stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        voice: Any = container.add_stream("aac", rate=_SOUND_RATE, layout="mono")
        for index in range(SECONDS * _RATE):
            picture = np.full((_SIZE, _SIZE, 3), colour, dtype=np.uint8)
            picture[:, 2 * index : 2 * index + 8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
        samples = _tone(220)
        for start in range(0, len(samples), 1024):
            part = np.ascontiguousarray(samples[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts = _SOUND_RATE, start
            container.mux(voice.encode(frame))
        container.mux(voice.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Two seconds of a tone as WAV."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=_SOUND_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(_tone(440)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = _SOUND_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
