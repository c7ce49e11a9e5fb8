"""The parts of a sound that are silent for so long that a mouth should rest: numbers alone.

Energy with hangover: 10 ms are speech when their level is over a threshold that follows the file's noise and speech.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lsx.media.audio_reader import SAMPLE_RATE
from lsx.media.video_reader import FPS

__all__ = ["FADE", "SHORTEST", "speech_share", "speech_spans"]

FADE = 3
"""Video frames in which a mouth goes from moving to resting, and back; more where there are more than 25 a second."""
SHORTEST = 0.4
"""Seconds of silence that count: shorter ones are part of speech."""

_TICK = 160  # samples of 10 ms
_PER_FRAME = SAMPLE_RATE // FPS // _TICK
_BEFORE, _AFTER = 8, 16  # ticks: a mouth opens before its sound, and closes after it
_OVER_NOISE = 12.0  # dB
_UNDER_SPEECH = 15.0  # dB
_LOWEST = -55.0  # dB of full scale: what is softer is silence whatever else there is
_NOISE, _SPEECH = 10, 95  # percentiles of the levels


def _levels(samples: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.float64]:
    """Level of each 10 ms in dB of full scale: [n]; -120 of digital silence."""
    scale = 32768.0 if samples.dtype == np.int16 else 1.0
    padded = np.zeros(-(-len(samples) // _TICK) * _TICK)
    padded[: len(samples)] = samples
    power = (padded.reshape(-1, _TICK) / scale) ** 2
    return np.asarray(10 * np.log10(np.maximum(power.mean(axis=1), 1e-12)))


def speech_spans(samples: NDArray[np.int16] | NDArray[np.float32]) -> list[tuple[int, int]]:
    """Start and end of every stretch of speech in ticks of 10 ms; between them are silences of 0.4 s at least.

    samples : mono at 16 kHz.
    """
    levels = _levels(samples)
    noise, speech = np.percentile(levels, (_NOISE, _SPEECH))
    threshold = max(min(noise + _OVER_NOISE, speech - _UNDER_SPEECH), _LOWEST)
    spans: list[tuple[int, int]] = []
    for tick in np.flatnonzero(levels > threshold).tolist():
        start, stop = max(tick - _BEFORE, 0), min(tick + 1 + _AFTER, len(levels))
        if spans and start - spans[-1][1] < SHORTEST * SAMPLE_RATE / _TICK:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return spans


def speech_share(
    samples: NDArray[np.int16] | NDArray[np.float32], frames: int, ticks: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """How far each of `frames` video frames belongs to speech, 0..1: float32 [frames].

    ticks : the 10 ms at which each frame begins, and the last one ends, [frames + 1]; default 25 frames a second.

    1 in speech, 0 in silence; a silence's first and last frames lead from one to the other, by quarters at 25 a second.
    A silence at the beginning or the end of the sound has one such side.
    """
    ticks = np.arange(frames + 1) * _PER_FRAME if ticks is None else ticks
    share = np.zeros(frames, np.float32)
    for start, stop in speech_spans(samples):
        share[np.searchsorted(ticks[1:], start, "right") : np.searchsorted(ticks[:-1], stop)] = 1
    faded = share.copy()
    lasts = (int(ticks[-1]) - int(ticks[0])) / frames
    fade = max(round(FADE * _PER_FRAME / lasts), FADE) if lasts else FADE
    for step in range(1, fade + 1):
        part = 1 - step / (fade + 1)
        faded[step:] = np.maximum(faded[step:], part * share[:-step])
        faded[:-step] = np.maximum(faded[:-step], part * share[step:])
    return faded
