"""Ranges of activations over the recorded feeds, by ModelOpt's calibrators, and SmoothQuant's factors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsx.core.tensors import LowPrecision
from lsx.errors import CalibrationError
from lsx.quantization.options import Method
from lsx.quantization.qdq_layers import LARGEST, fake_quantize
from lsx.quantization.recipe import Layer, smooth
from lsx.quantization.smoothing import smoothing_factors, smoothing_groups
from lsx.quantization.target import QuantizationTarget, hooked

__all__ = ["find_ranges", "find_smoothing"]

_CANDIDATES = 100  # ranges tried for the least square error


@cache
def _calibrators() -> Any:
    """ModelOpt's calibrators. Importing them warns of things that are no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelopt.torch.quantization import calib
    return calib


def find_smoothing(
    target: QuantizationTarget, alpha: float, report: Callable[[str], None]
) -> dict[str, NDArray[np.float32]]:
    """SmoothQuant's factors for every group of `target`, by the checkpoint's name of its first layer. Folds them in."""
    groups = {target.module.checkpoint_name(group.name): group for group in smoothing_groups(target.module)}
    if not groups:
        return {}
    channels = {name: _calibrators().MaxCalibrator(axis=-1) for name in groups}

    def collect(layer: Layer, x: Tensor, _out: Tensor) -> None:
        channels[layer.name].collect(x.flatten(0, -2))

    with hooked(target, collect, lambda layer: layer.name in groups):
        _run_all(target, report, "channel ranges")
    factors = {
        name: smoothing_factors(group, channels[name].compute_amax().flatten().cpu(), alpha)
        for name, group in groups.items()
    }
    smooth(target.module, factors)
    return factors


def find_ranges(
    target: QuantizationTarget,
    precision: LowPrecision,
    method: Method,
    percentile: float,
    report: Callable[[str], None],
) -> tuple[dict[str, float], list[Tensor]]:
    """The largest absolute input that every layer of `target` shall represent; and its output of every feed, which
    the same pass gives. Raises CalibrationError."""
    calib = _calibrators()
    layers = {layer.name: layer for layer in target.layers() if layer.reason is None}
    calibrators = {n: calib.MaxCalibrator() if method == "max" else calib.HistogramCalibrator() for n in layers}
    seen: set[str] = set()

    def collect(layer: Layer, x: Tensor, _out: Tensor) -> None:
        if not bool(x.any()):  # the unconditional half's audio: all zeros, which a histogram cannot start from
            return
        seen.add(layer.name)
        calibrators[layer.name].collect(x.detach())

    with hooked(target, collect, lambda layer: layer.name in layers):
        outputs = _run_all(target, report, "ranges")
    unseen = sorted(layers.keys() - seen)
    if unseen:
        raise CalibrationError(
            f"{target.name}: no feed reaches {unseen[0]} with anything but zeros. Calibrate with more samples"
        )
    return {
        name: _largest(calibrator, precision, method, percentile) for name, calibrator in calibrators.items()
    }, outputs


def _largest(calibrator: Any, precision: LowPrecision, method: Method, percentile: float) -> float:
    if method == "max":
        return float(calibrator.compute_amax())
    if method == "percentile":
        return float(calibrator.compute_amax("percentile", percentile=percentile))
    return _least_square_error(calibrator._calib_hist.double(), calibrator._calib_bin_edges.double(), precision)


def _least_square_error(counts: Tensor, edges: Tensor, precision: LowPrecision) -> float:
    """The range with the least square error over a histogram. ModelOpt 0.47's own search takes the number of bits for
    a bias and clips nearly everything: U-Net cosine 0.42 where this gives 0.998."""
    centres = (edges[1:] + edges[:-1]) / 2
    highest = float(edges[-1])
    errors = []
    candidates = [highest * (n + 1) / _CANDIDATES for n in range(_CANDIDATES)]
    for largest in candidates:
        rounded = fake_quantize(centres, torch.tensor(largest / LARGEST[precision]), precision)
        errors.append(float(((rounded - centres) ** 2 * counts).sum()))
    return candidates[int(np.argmin(errors))]


def _run_all(target: QuantizationTarget, report: Callable[[str], None], label: str) -> list[Tensor]:
    outputs = []
    for number, feed in enumerate(target.feeds(), 1):
        report(f"{target.name}: {label}, feed {number}")
        outputs.append(target.run(feed))
    if not outputs:
        raise CalibrationError(f"the calibration has no feeds of {target.name}. Calibrate again")
    return outputs
