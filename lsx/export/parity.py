"""Parity: an exported graph against its module, on the same seeded inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.errors import ParityError
from lsx.export.graphs import Tolerance

__all__ = ["Difference", "check", "difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two arrays differ: maximum and mean of the absolute difference, and cosine similarity."""

    max: float
    mean: float
    cosine: float


def difference(result: NDArray[Any], expected: NDArray[Any]) -> Difference:
    """Measure `result` against `expected`, arrays of one shape. NaN in either makes every figure NaN."""
    a, b = result.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    apart = np.abs(a - b)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norm if norm else float(np.array_equal(a, b))
    return Difference(max=float(apart.max()), mean=float(apart.mean()), cosine=cosine)


def check(
    graph: str,
    results: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    tolerance: Tolerance,
) -> dict[str, Difference]:
    """Compare every output; a float one's tolerance is in units of its standard deviation where that exceeds 1.

    Raises ParityError naming graph, output, errors and tolerance of the first that fails."""
    differences = {}
    for name, wanted in expected.items():
        if results[name].shape != wanted.shape:
            raise ParityError(f"{graph}: output {name} is {results[name].shape}, its module gives {wanted.shape}")
        d = difference(results[name], wanted)
        unit = 1.0 if tolerance.levels else max(1.0, float(wanted.std()))
        # Written so that NaN fails.
        if not (d.max <= tolerance.max * unit and d.mean <= tolerance.mean * unit and d.cosine >= tolerance.cosine):
            raise ParityError(
                f"{graph}: output {name} differs from the PyTorch module: "
                f"max error {d.max:.3g} (tolerance {tolerance.max * unit:.3g}), "
                f"mean error {d.mean:.3g} ({tolerance.mean * unit:.3g}), cosine {d.cosine:.7f} ({tolerance.cosine:g}). "
                "The bundle was not written; please report this with your torch version"
            )
        differences[name] = d
    return differences
