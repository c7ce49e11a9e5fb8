"""What the sound does to the mouth: opening by loudness, width by spectral centroid, shut in silence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRAME_SAMPLES", "MouthTrack", "mouth_track"]

FRAME_SAMPLES = 640
"""Samples at 16 kHz that a frame at 25 a second is shown for."""

_HOP = 160  # 10 ms
_REACH = 6  # hops to each side of a frame's middle
_QUIET, _LOUD = -40.0, -16.0  # dB below the largest level: shut, and wide open
_LOW, _HIGH = 300.0, 1100.0  # Hz: narrowest and widest mouth
_AT_REST = 0.5
_SPECTRUM = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MouthTrack:
    """The mouth of each frame."""

    opening: NDArray[np.float64]
    """[frames], 0 shut to 1 wide open."""
    width: NDArray[np.float64]
    """[frames], 0 narrow to 1 wide; 0.5 at rest."""


def mouth_track(samples: NDArray[np.int16], frames: int) -> MouthTrack:
    """The mouth in frames at 25 a second of sound int16 [n] at 16 kHz; beyond its end is silence.

    Frame i looks at the sound from 60 ms before the middle of its 40 ms to 60 ms after, alike to both sides; levels are
    absolute, so nothing else of the sound matters.
    """
    hops = frames * (FRAME_SAMPLES // _HOP) + 2 * _REACH
    level, centre = _levels(samples, hops)
    raw = np.clip((level - _QUIET) / (_LOUD - _QUIET), 0, 1)
    wide = np.clip(np.log(centre / _LOW) / np.log(_HIGH / _LOW), 0, 1)
    kernel = np.hanning(2 * _REACH + 2)[1:-1]  # an even number of hops: a frame's middle lies between two
    kernel /= kernel.sum()
    # Hop h begins h - _REACH hops after the sound's start; frame i's middle is at hop 4 i + 2 of the sound.
    first = np.arange(frames)[:, None] * (FRAME_SAMPLES // _HOP) + 2
    seen = first + np.arange(2 * _REACH)
    opening = raw[seen] @ kernel
    weight = raw[seen] * kernel
    width = ((weight * wide[seen]).sum(1) + 0.02 * _AT_REST) / (weight.sum(1) + 0.02)
    return MouthTrack(opening=opening, width=width)


def _levels(samples: NDArray[np.int16], hops: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each 10 ms, the first of them `_REACH` before the sound: level in dB and spectral centroid in Hz, [hops]."""
    sound = np.zeros(hops * _HOP)
    kept = samples[: (hops - _REACH) * _HOP]
    sound[_REACH * _HOP : _REACH * _HOP + len(kept)] = kept / 32768
    parts = sound.reshape(hops, _HOP)
    level = 10 * np.log10((parts**2).mean(1) + 1e-10)
    power = np.abs(np.fft.rfft(parts * np.hanning(_HOP), _SPECTRUM)) ** 2
    frequency = np.fft.rfftfreq(_SPECTRUM, 1 / 16000)
    return level, (power @ frequency + 1e-9 * _LOW) / (power.sum(1) + 1e-9)
