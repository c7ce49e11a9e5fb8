"""A clip whose frames are numbered, and what is seen and heard of it in a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames

__all__ = ["COUNT", "QUICK", "RATE", "heard", "marked", "numbers"]

QUICK: dict[str, Any] = {
    "steps": 1,
    "guidance": 1.0,
    "codec": "h264",
    "crf": 1,
    "preset": "ultrafast",
    "audio_codec": "pcm",
}
COUNT, RATE = 24, 44100


def marked() -> list[NDArray[np.uint8]]:
    """Frames whose number stands in their corner, as light."""
    frames = []
    for index, frame in enumerate(portrait_frames(COUNT, 320, 240)):
        numbered = frame.copy()
        numbered[:24, :24] = 10 * index + 5
        frames.append(numbered)
    return frames


def numbers(frames: Any) -> list[int]:
    return [round((float(frame[4:20, 4:20].mean()) - 5) / 10) for frame in frames]


def heard(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.rate == RATE
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])
