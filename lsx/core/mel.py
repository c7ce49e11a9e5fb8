"""Mel filters, as librosa and Whisper have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MELS", "mel_filters"]

MELS = 80
"""Filters, of Whisper and of StableSyncNet."""


def mel_filters(window: int, low: float, high: float) -> NDArray[np.float64]:
    """Triangles on Slaney's mel scale, Slaney-normalised: float64 [80, window // 2 + 1].

    window : samples of a Fourier transform of 16 kHz; low, high : Hz, 0 to 8000.
    """
    edges = _to_hz(np.linspace(_to_mel(low), _to_mel(high), MELS + 2))
    frequencies = np.linspace(0, 8000, window // 2 + 1)
    slopes = edges[:, None] - frequencies[None]
    widths = np.diff(edges)[:, None]
    filters = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    return np.asarray(filters * (2 / (edges[2:] - edges[:-2]))[:, None])


def _to_mel(hz: float) -> float:
    """Linear below 1 kHz (15 mel), logarithmic above: 27 mel a factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else float(15 + np.log(hz / 1000) / (np.log(6.4) / 27))


def _to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * (200 / 3), 1000 * np.exp((mel - 15) * (np.log(6.4) / 27)))
