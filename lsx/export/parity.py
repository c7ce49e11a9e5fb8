"""Parity: an exported graph against its module, on the same seeded inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from lsx.errors import ParityError
from lsx.export.graphs import Tolerance
from lsx.figures import Figures, compare

__all__ = ["check"]


def check(
    graph: str,
    results: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    tolerance: Tolerance,
) -> dict[str, Figures]:
    """Compare every output; a float one's tolerance is in units of its standard deviation where that exceeds 1.

    Raises ParityError naming graph, output, errors and tolerance of the first that fails."""
    figures = {}
    for name, wanted in expected.items():
        if results[name].shape != wanted.shape:
            raise ParityError(f"{graph}: output {name} is {results[name].shape}, its module gives {wanted.shape}")
        found = compare(results[name], wanted)
        unit = 1.0 if tolerance.levels else max(1.0, float(wanted.std()))
        # Written so that NaN fails.
        holds = found.max_error <= tolerance.max * unit and found.mean_error <= tolerance.mean * unit
        if not (holds and found.cosine >= tolerance.cosine):
            raise ParityError(
                f"{graph}: output {name} differs from the PyTorch module: "
                f"max error {found.max_error:.3g} (tolerance {tolerance.max * unit:.3g}), "
                f"mean error {found.mean_error:.3g} ({tolerance.mean * unit:.3g}), "
                f"cosine {found.cosine:.7f} ({tolerance.cosine:g}). "
                "The bundle was not written; please report this with your torch version"
            )
        figures[name] = found
    return figures
