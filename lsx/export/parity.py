"""Parity: an exported graph against its module, on the same seeded inputs, in units of the output's own spread.

An absolute bound on the largest error is the wrong measure: it grows with the values and with their number. So errors
are told in standard deviations of what is expected, the mean and a high quantile are judged, and the single worst
element only for gross faults. How the limits were derived: docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.manifest import ParityEntry
from lsx.core.tensors import FloatPrecision
from lsx.errors import ParityError
from lsx.metrics.arrays import compare

__all__ = ["QUANTIZED", "UNIT_ROUNDOFF", "Tolerance", "judge", "measure", "tolerance_of"]

HIGH = 0.9999
"""The quantile that is judged besides the mean."""

UNIT_ROUNDOFF: dict[FloatPrecision, float] = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of rounding one number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a graph's output may be from what is expected: so many of its spreads, and a little absolute."""

    mean: float
    """Limit of the mean error, in spreads."""
    high: float
    """Limit of the 99.99th percentile of the errors, in spreads."""
    gross: float
    """Limit of the largest error, in spreads: nothing but a gross fault is beyond."""
    cosine: float
    """Lowest cosine similarity."""
    levels: float = 0.0
    """Added to the limits of the high quantile and the largest error, in the output's own unit."""

    def limits(self, spread: float) -> tuple[float, float, float]:
        """The limits of the mean, the high and the largest error of an output of that spread, in its own unit."""
        tiny = 1e-12  # an output that is constant, such as a count of zero, has no spread
        mean, high, gross = (factor * spread + tiny for factor in (self.mean, self.high, self.gross))
        return mean, high + self.levels, gross + self.levels


QUANTIZED = Tolerance(mean=1e6, high=1e6, gross=1e6, cosine=0.98)
"""Any quantized graph against its float32 module on a recorded sample. It tells a wrong graph from a right one and no
more: a difference of one bit moves some codes by one, which move others, until two right ones differ by as much as
either differs from float32. How good it is, the search and `lsx verify` say."""


def tolerance_of(precision: FloatPrecision, dtype: str, *, deep: bool) -> Tolerance:
    """The tolerance of an output of `dtype` in a graph of `precision`; deep : whether it went through a network.

    An integer output may be off by what rounding to it makes of any error: one level at the quantile and beyond.
    """
    unit = UNIT_ROUNDOFF[precision]
    growth = _DEEP[precision] if deep else _SHALLOW
    mean, high, gross = (factor * unit for factor in growth)
    if dtype == "uint8":
        return Tolerance(mean=mean, high=high, gross=gross, cosine=_COSINE[precision], levels=1.0)
    return Tolerance(mean=mean, high=high, gross=gross, cosine=_COSINE[precision])


_SHALLOW = (8.0, 64.0, 256.0)
"""Unit round-offs that element-wise operations may lose: mean, 99.99 %, largest. Measured: 0.3, 2 and 4."""

_DEEP: dict[FloatPrecision, tuple[float, float, float]] = {
    "fp32": (1024.0, 2.0**15, 2.0**20),
    "fp16": (32.0, 256.0, 2048.0),
    "bf16": (32.0, 256.0, 2048.0),
}
"""The same for networks, twelve, thirteen and hundreds of times the worst of ten seeds: 86, 2,487 and 2,487 in float32
(the VAE encoder, whose first layers see a constant half), 5, 29 and 29 in fp16, 4, 25 and 25 in bf16."""

_COSINE: dict[FloatPrecision, float] = {"fp32": 0.999999, "fp16": 0.9999, "bf16": 0.998}


def measure(
    output: str, result: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance, *, method: str
) -> ParityEntry:
    """Every figure of one output beside its limit; NaN where the result has any."""
    error = compare(result, expected)
    errors = np.abs(result.astype(np.float64) - expected.astype(np.float64)).ravel()
    rank = min(int(np.ceil(HIGH * errors.size)), errors.size - 1)
    spread = float(expected.std(dtype=np.float64))
    peak = float(expected.max()) - float(expected.min())
    noise = float(np.sqrt(np.mean(errors**2)))
    psnr = 20 * np.log10(peak / noise) if noise > 0 and peak > 0 else (np.inf if noise == 0 else 0.0)
    mean, high, gross = tolerance.limits(spread)
    return ParityEntry(
        output=output,
        method=method,
        max_error=error.max_error,
        mean_error=error.mean_error,
        high_error=float(np.partition(errors, rank)[rank]),
        cosine=error.cosine,
        psnr=float(min(psnr, 999.0)),
        spread=spread,
        tolerance_max=gross,
        tolerance_mean=mean,
        tolerance_high=high,
        tolerance_cosine=tolerance.cosine,
    )


def judge(graph: str, entries: Sequence[ParityEntry]) -> None:
    """Raise ParityError for the first output whose figures miss a limit, naming output, measure, limit and remedy."""
    for entry in entries:
        measures = [
            ("mean error", entry.mean_error, entry.tolerance_mean),
            ("99.99 % error", entry.high_error, entry.tolerance_high),
            ("largest error", entry.max_error, entry.tolerance_max),
        ]
        missed = [
            f"{name} {figure:.3g} (limit {limit:.3g})"
            for name, figure, limit in measures
            if figure is not None and limit is not None and not figure <= limit  # so that NaN fails
        ]
        if entry.tolerance_cosine is not None and not entry.cosine >= entry.tolerance_cosine:
            missed.append(f"cosine {entry.cosine:.7f} (at least {entry.tolerance_cosine:g})")
        if missed:
            raise ParityError(
                f"{graph}: output {entry.output} differs from the PyTorch module: {', '.join(missed)}, where the "
                f"values spread by {entry.spread or 0:.3g}; {entry.method}. The bundle was not written. See all "
                "figures with --parity-report FILE, and report them with your torch version"
            )
