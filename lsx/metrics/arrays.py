"""How far two arrays are apart. NaN never passes: it makes every figure NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArrayError", "compare", "worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayError:
    """How an array differs from what it should be."""

    cosine: float
    max_error: float
    mean_error: float
    snr: float
    """Signal-to-noise ratio in dB; infinite where nothing differs."""


def compare(result: NDArray[Any], expected: NDArray[Any]) -> ArrayError:
    """Figures of two arrays of one shape, computed in float64."""
    a, b = result.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    error = np.abs(a - b)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norms if norms else float(np.array_equal(a, b))
    noise = float(error @ error)
    with np.errstate(divide="ignore"):
        snr = float("inf") if noise == 0 else float(10 * np.log10(float(b @ b) / noise))
    return ArrayError(cosine=cosine, max_error=float(error.max()), mean_error=float(error.mean()), snr=snr)


def worst(found: Sequence[ArrayError]) -> ArrayError:
    """The worst of each figure over several calls; NaN where any is NaN."""
    rows = np.array([[f.cosine, f.max_error, f.mean_error, f.snr] for f in found])
    low, high = rows.min(axis=0), rows.max(axis=0)
    return ArrayError(cosine=float(low[0]), max_error=float(high[1]), mean_error=float(high[2]), snr=float(low[3]))
