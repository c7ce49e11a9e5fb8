"""The sound as StableSyncNet hears it, and which of it belongs to which frames. Source: LatentSync."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.mel import mel_filters

__all__ = [
    "MEL_COLUMNS",
    "SYNC_FRAMES",
    "SYNC_SHIFT",
    "SYNC_STRIDE",
    "SyncMel",
    "latest_window",
    "mel_window",
    "syncnet_mel",
]

SYNC_FRAMES = 16
"""Frames of one look."""
SYNC_STRIDE = 8
"""Frames from one look of a judged clip to the next."""
SYNC_SHIFT = 7
"""Frames each way by which the sound of a judged clip is moved."""
MEL_COLUMNS = 52
"""Columns of one look at the sound: 16 frames at 25 a second, 80 columns a second, and one more."""
_PER_SECOND = 80
_HOP, _WINDOW = 200, 800


class SyncMel:
    """A whole file's mel, any part of it computed when it is asked for.

    Pre-emphasis 0.97; windows of 800 (Hann), 200 apart, centred over zeros; 80 Slaney mels from 55 to 7600 Hz; decibels
    over a reference of 20, -100..0 taken to -4..4.
    """

    def __init__(self, samples: NDArray[np.floating[Any]] | NDArray[np.int16]) -> None:
        """samples : float in -1..1, or int16, [n], 16 kHz."""
        self._samples = samples
        self.count = len(samples) // _HOP + 1
        """Columns."""
        self._filters = mel_filters(_WINDOW, 55.0, 7600.0)
        self._hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)

    def _wave(self, start: int, stop: int) -> NDArray[np.float64]:
        """Samples after pre-emphasis, zeros beyond the sound."""
        wave = np.zeros(stop - start)
        first, last = max(start, 0), min(stop, len(self._samples))
        if first >= last:
            return wave
        part = self._samples[max(first - 1, 0) : last]
        part = part.astype(np.float32) / 32768 if part.dtype == np.int16 else part
        before = part[:-1] if first else np.concatenate([part[:1] * 0, part[:-1]])
        wave[first - start : last - start] = (part[1:] if first else part) - np.float32(0.97) * before
        return wave

    def columns(self, start: int, stop: int) -> NDArray[np.float32]:
        """Columns start..stop, float32 [80, stop - start]."""
        wave = self._wave(start * _HOP - _WINDOW // 2, (stop - 1) * _HOP + _WINDOW // 2)
        windows = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::_HOP]
        magnitude = np.abs(np.fft.rfft(windows * self._hann)).T
        decibels = 20 * np.log10(np.maximum(self._filters @ magnitude, 1e-5)) - 20
        return np.asarray(np.clip(8 * (decibels + 100) / 100 - 4, -4, 4), dtype=np.float32)

    def window(self, frame: int) -> NDArray[np.float32]:
        """The columns of the 16 frames from `frame` on, at 25 a second: float32 [80, 52]; silent beyond the sound."""
        start = _column(frame)
        return self.columns(start, start + MEL_COLUMNS)


def syncnet_mel(samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The mel of a whole sound: float32 [80, samples // 200 + 1] in -4..4. samples : as of `SyncMel`."""
    mel = SyncMel(samples)
    return mel.columns(0, mel.count)


def _column(frame: int, fps: int = 25) -> int:
    """The mel column at which a frame begins, as the original rounds it."""
    return int(_PER_SECOND * (frame / fps))


def latest_window(columns: int, frames: int) -> int:
    """The last frame at which a window of 16 frames and its sound can begin, negative where none can.

    columns : of the mel; frames : of the video.
    """
    start = frames - SYNC_FRAMES
    while start >= 0 and _column(start) + MEL_COLUMNS > columns:
        start -= 1
    return start


def mel_window(mel: NDArray[np.float32], frame: int, fps: int = 25) -> NDArray[np.float32]:
    """The 52 columns that belong to the 16 frames from `frame` on: float32 [80, 52].

    Raises ValueError where the sound ends before.
    """
    start = _column(frame, fps)
    window = mel[:, start : start + MEL_COLUMNS]
    if window.shape[1] != MEL_COLUMNS:
        raise ValueError(f"the sound ends at column {mel.shape[1]} of its mel, the window at {start + MEL_COLUMNS}")
    return window
