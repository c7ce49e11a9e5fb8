"""Calibration to recipes: smoothing, ranges, search, and the tables and pictures that go into the bundle."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lsx.bundle.writing import check_writable
from lsx.calibration.store import Calibration
from lsx.core.tensors import LowPrecision
from lsx.core.thresholds import THRESHOLDS
from lsx.errors import CalibrationError, OutputError
from lsx.models.checkpoint import Checkpoint
from lsx.quantization.coverage import Quantization
from lsx.quantization.options import AIMED_COSINES, MIN_COVERAGE, Method, QuantizeOptions
from lsx.quantization.ranges import find_ranges, find_smoothing
from lsx.quantization.recipe import TARGET_GRAPHS, Recipe
from lsx.quantization.sensitivity import Search, SearchOptions, SearchResult
from lsx.quantization.target import QuantizationTarget

__all__ = ["quantize", "quantize_beside"]

_SHOWN = 40  # layers in the picture


def quantize(
    checkpoint: Checkpoint,
    calibration: Calibration,
    precision: LowPrecision,
    work: Path,
    options: QuantizeOptions | None = None,
    report: Callable[[str], None] | None = None,
) -> Quantization:
    """Recipes of the U-Net and the VAE decoder from the feeds of `calibration`.

    work : folder in which measurements are kept, so that an interrupted search goes on.

    Raises CalibrationError when the calibration is another checkpoint's, AccuracyError when the target cannot be held.
    """
    options, say = options or QuantizeOptions(), report or (lambda _: None)
    _check_model(checkpoint, calibration)
    thresholds = THRESHOLDS[precision]
    min_cosines = {"unet": options.unet_cosine or thresholds.unet_cosine, "vae_decoder": thresholds.vae_cosine}
    aimed_cosines = min_cosines | {"unet": options.unet_cosine or AIMED_COSINES[precision]}
    method: Method = options.method or ("percentile" if precision == "int8" else "max")
    recipes, flops, outcomes, feeds = {}, {}, {}, dict[str, dict[str, Any]]()
    for name in TARGET_GRAPHS:
        target = QuantizationTarget(name, checkpoint, calibration)
        feeds |= target.first_feeds()
        smoothing = find_smoothing(target, options.alpha, say) if precision == "int8" and options.alpha > 0 else {}
        ranges, outputs = find_ranges(target, precision, method, options.percentile, say)
        bounds = _bounds(options, min_cosines[name], aimed_cosines[name])
        search = Search(target, precision, ranges, outputs, bounds, work / f"{name}.json", say)
        outcomes[name] = search.run()
        flops[name] = search.flops
        kept = outcomes[name].kept
        recipes[name] = Recipe(
            target=name, precision=precision, method=method, ranges=ranges, smoothing=smoothing, kept=kept
        )
    tables = {name: _table(recipes[name], flops[name], outcomes[name], aimed_cosines[name]) for name in TARGET_GRAPHS}
    return Quantization(
        recipes=recipes,
        flops=flops,
        feeds=feeds,
        calibration=calibration.digest,
        method=_method_in_words(method, precision, options),
        files={
            "layers.json": (json.dumps(tables, indent=1) + "\n").encode(),
            "sensitivity.png": _picture(outcomes, flops, precision),
        },
    )


def _bounds(options: QuantizeOptions, min_cosine: float, aimed_cosine: float) -> SearchOptions:
    return SearchOptions(
        min_cosine=min_cosine,
        aimed_cosine=aimed_cosine,
        min_coverage=0.0 if options.allow_partial else MIN_COVERAGE,
        budget=options.search_budget,
        keep=options.keep_fp16,
    )


def _method_in_words(method: Method, precision: LowPrecision, options: QuantizeOptions) -> str:
    """The method as the manifest tells it."""
    text = f"{method} {options.percentile:g}" if method == "percentile" else method
    return f"{text}, SmoothQuant alpha {options.alpha:g}" if precision == "int8" and options.alpha > 0 else text


def quantize_beside(
    checkpoint: Checkpoint,
    calibration: Path,
    precision: LowPrecision,
    output: Path,
    options: QuantizeOptions,
    report: Callable[[str], None],
) -> Quantization:
    """`quantize` for a bundle at `output`, its measurements kept in a folder beside it while it is under way.

    The folder's name depends on the checkpoint, the calibration and the options: only the same search goes on from it.
    """
    opened = Calibration.open(calibration)
    check_writable(output)  # before an hour's work, not after it
    measured = [opened.digest, precision, options.method, options.percentile, options.alpha, list(options.keep_fp16)]
    key = hashlib.sha256(json.dumps(measured).encode()).hexdigest()[:12]
    work = output.absolute().parent / f".{output.name}-search-{key}"
    try:
        work.mkdir(exist_ok=True)
        quantization = quantize(checkpoint, opened, precision, work, options, report)
        shutil.rmtree(work)
    except OSError as error:
        raise OutputError(f"{work}: cannot be written: {error.strerror or error}") from error
    return quantization


def _check_model(checkpoint: Checkpoint, calibration: Calibration) -> None:
    made_of, digests = calibration.manifest.checkpoint, checkpoint.hashes()
    other = sorted(name for name in digests if name != "config" and made_of.get(name) != digests[name])
    if other:
        raise CalibrationError(
            f"{calibration.path}: calibrated with another checkpoint ({other[0]} differs). Calibrate again: "
            "lsx calibrate BUNDLE --clips VIDEOS -o CALIB"
        )
    if calibration.manifest.resolution != checkpoint.spec.resolution:
        raise CalibrationError(
            f"{calibration.path}: calibrated at {calibration.manifest.resolution} px, the model is for "
            f"{checkpoint.spec.resolution} px. Calibrate again"
        )


def _table(recipe: Recipe, flops: Mapping[str, float], outcome: SearchResult, aimed_cosine: float) -> dict[str, Any]:
    """Layer by layer: FLOPs, whether it is quantized, why not, range, error alone."""
    total = sum(flops.values())
    return {
        "precision": recipe.precision,
        "method": recipe.method,
        "target_cosine": aimed_cosine,
        "cosine": outcome.cosine,
        "cosine_all_quantised": outcome.all_quantized,
        "coverage": outcome.coverage,
        "layers": [_layer_row(name, flops[name] / total, recipe, outcome) for name in flops],
    }


def _layer_row(name: str, share: float, recipe: Recipe, outcome: SearchResult) -> dict[str, Any]:
    error = next((error for error in outcome.errors if error.name == name), None)
    return {
        "name": name,
        "flops_share": share,
        "quantised": recipe.quantizes(name),
        "reason": recipe.kept.get(name),
        "range": recipe.ranges.get(name),
        "error": None if error is None else error.error,
        "error_measured": None if error is None else error.measured,
    }


def _picture(outcomes: Mapping[str, SearchResult], flops: Mapping[str, Mapping[str, float]], precision: str) -> bytes:
    """PNG: the layers with the highest errors, and which of them stay fp16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(14, 5 + 0.16 * _SHOWN), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(outcomes), squeeze=False)[0]
    for panel, (name, outcome) in zip(panels, outcomes.items(), strict=True):
        worst = sorted(outcome.errors, key=lambda e: -e.error)[:_SHOWN][::-1]
        colours = ["tab:orange" if e.name in outcome.kept else "tab:blue" for e in worst]
        panel.barh(np.arange(len(worst)), [max(e.error, 1e-12) for e in worst], color=colours)
        labels = [f"{e.name}  {100 * flops[name][e.name] / sum(flops[name].values()):.2f} %" for e in worst]
        panel.set_yticks(np.arange(len(worst)), labels, fontsize=6)
        panel.set_xscale("log")
        panel.set_xlabel("relative square error at the graph's output, this layer alone in " + precision)
        panel.set_title(
            f"{name}: cosine {outcome.cosine:.5f}, {100 * outcome.coverage:.1f} % of FLOPs quantized\n"
            f"(all quantized: {outcome.all_quantized:.5f}); orange stays fp16; share of FLOPs behind the name",
            fontsize=9,
        )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
