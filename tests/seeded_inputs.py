"""Seeded inputs that the recorded arrays were made from: waveforms, pictures, landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lsx.core.noise import named_noise


def waveform(samples: int, seed: int = 0) -> NDArray[np.int16]:
    """Noise under a slow envelope, int16 mono at 16 kHz."""
    seconds = np.arange(samples) / 16000
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * seconds)
    levels = np.round(0.1 * named_noise(f"waveform{samples}", (samples,), seed) * loudness * 32767)
    return np.clip(levels, -32768, 32767).astype(np.int16)


def picture(height: int, width: int, phase: float) -> NDArray[np.uint8]:
    """A smooth RGB picture, uint8 [height, width, 3]; neighbouring phases differ a little."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = [
        127.5 + 120 * np.sin(x / (17 + 5 * c) + phase) * np.cos(y / (23 - 4 * c) - 0.7 * phase) for c in range(3)
    ]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def landmarks(frames: int, height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    """Brow, brow and nose of a drifting face, float64 [frames, 3, 2], rounded to whole pixels."""
    face = np.array([[0.40, 0.42], [0.60, 0.43], [0.505, 0.53]]) * [width, height]
    drift = np.linspace(0, 1, frames)[:, None, None] * np.array([0.03 * width, -0.02 * height])
    jitter = named_noise("landmarks", (frames, 3, 2), seed).astype(np.float64) * 0.8
    return np.asarray(np.round(face[None] + drift + jitter))
