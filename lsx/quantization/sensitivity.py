"""Choose the layers that stay fp16: the error of each alone, then the worst by error per FLOP until the target holds.

A layer's error is the square error at the graph's output with only that layer quantized, over the output's squares.
Within the budget every layer is measured alone. When it is too small for that, whole blocks are measured (levels of the
network, where there are more blocks than it allows), their error is shared out by what each layer adds at its own
output, and the rest of the budget goes to the worst of them.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lsx.core.atomic_files import write_whole
from lsx.core.tensors import LowPrecision
from lsx.errors import AccuracyError
from lsx.metrics.arrays import compare
from lsx.quantization.qdq_layers import quantized_layer
from lsx.quantization.recipe import TARGET_GRAPHS, Layer, replace_layer
from lsx.quantization.target import CalibrationSample, QuantizationTarget, hooked

__all__ = ["LayerError", "Search", "SearchOptions", "SearchResult"]

_ROUNDS = 6
_MARGIN = 0.8  # of the error that the target allows: unseen clips are a little worse than those calibrated on


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Bounds of a search."""

    min_cosine: float
    """Lowest cosine of the graph's output over all feeds."""
    aimed_cosine: float
    """What it should be where the lowest coverage allows: `min_cosine` or more."""
    min_coverage: float = 0.85
    """Lowest share of the target's FLOPs that is quantized."""
    budget: int = 400
    """Most forward passes that measure single layers or blocks."""
    keep: tuple[str, ...] = ()
    """Patterns of layers that the user wants in fp16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What quantizing one layer alone does to the graph's output."""

    name: str
    error: float
    """Relative square error."""
    measured: bool
    """Alone, or as its share of its block's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What the search found."""

    errors: tuple[LayerError, ...]
    kept: dict[str, str]
    cosine: float
    """Lowest over all feeds, with the layers that were kept."""
    all_quantized: float
    """The same with every layer quantized that can be."""
    coverage: float
    """Share of the target's FLOPs that is quantized."""


class Search:
    """The search over one target. reference : its output of every feed, not quantized; state : a file in which
    measurements are kept for a run that goes on."""

    def __init__(
        self,
        target: QuantizationTarget,
        precision: LowPrecision,
        ranges: dict[str, float],
        reference: Sequence[Tensor],
        options: SearchOptions,
        state: Path,
        report: Callable[[str], None],
    ) -> None:
        self._target, self._precision, self._ranges, self._options = target, precision, ranges, options
        self._state, self._report = state, report
        self._layers = {layer.name: layer for layer in target.layers()}
        self.flops = target.flops()
        self._total = sum(self.flops.values())
        self._known: dict[str, float] = {}
        if state.is_file():
            self._known = json.loads(state.read_text(encoding="utf-8"))
        self._feeds = list(target.feeds())
        self._reference = reference

    def run(self) -> SearchResult:
        """Raises AccuracyError when the target cannot be held at the lowest coverage."""
        always_fp16 = self._user_kept()
        every = self._cosines(range(len(self._feeds)), always_fp16, "everything quantized")
        errors = self._errors(always_fp16)
        fp16, cosine = self._greedy(errors, always_fp16, every)
        return SearchResult(
            errors=tuple(errors), kept=fp16, cosine=cosine, all_quantized=min(every), coverage=self._coverage(fp16)
        )

    def _user_kept(self) -> dict[str, str]:
        reasons = {name: layer.reason for name, layer in self._layers.items() if layer.reason is not None}
        for name in self._ranges:
            pattern = next((p for p in self._options.keep if fnmatch.fnmatchcase(name, p)), None)
            if pattern is not None:
                reasons[name] = f"--keep-fp16 {pattern}"
        return reasons

    def _coverage(self, kept: Mapping[str, str]) -> float:
        return sum(f for name, f in self.flops.items() if name not in kept) / self._total

    def _errors(self, kept: Mapping[str, str]) -> list[LayerError]:
        names = [name for name in self._ranges if name not in kept]
        # One sample will do: the order of the layers hardly depends on which. All layers run in the first graph.
        feed = sum(f.graph == TARGET_GRAPHS[self._target.name][0] for f in self._feeds) // 2
        if len(names) <= self._options.budget:
            return [LayerError(name=n, error=self._alone((n,), feed), measured=True) for n in names]
        local = self._local_errors(self._feeds[feed], names)
        blocks = _grouped(names, self._options.budget)
        by_block = {b: self._alone(tuple(inside), feed, f"{b} as one") for b, inside in blocks.items()}
        left = self._options.budget - len(by_block)
        errors = []
        worst = sorted(blocks, key=lambda b: -by_block[b] / sum(self.flops[n] for n in blocks[b]))
        for block in worst:
            inside = blocks[block]
            left -= len(inside)
            total = sum(local[n] for n in inside) or 1.0
            for name in inside:
                measured = left >= 0
                error = self._alone((name,), feed) if measured else by_block[block] * local[name] / total
                errors.append(LayerError(name=name, error=error, measured=measured))
        return errors

    def _alone(self, names: tuple[str, ...], feed: int, group: str | None = None) -> float:
        """The output's relative square error with only these layers quantized. group : the name of several."""
        key = names[0] if group is None else group
        if key not in self._known:
            self._report(f"{self._target.name}: {key}")
            with self._quantized(names):
                out = self._target.run(self._feeds[feed])
            reference = self._reference[feed]
            self._known[key] = float(((out - reference).double() ** 2).sum() / (reference.double() ** 2).sum())
            write_whole(self._state, json.dumps(self._known).encode())
        return self._known[key]

    def _local_errors(self, feed: CalibrationSample, names: Sequence[str]) -> dict[str, float]:
        """Relative square error at each layer's own output, all in one pass."""
        errors: dict[str, float] = {}

        def measure(layer: Layer, x: Tensor, out: Tensor) -> None:
            rough = quantized_layer(layer.module, self._ranges[layer.name], self._precision)(x)
            errors[layer.name] = float(((rough - out).double() ** 2).sum() / (out.double() ** 2).sum().clamp(min=1e-30))

        self._report(f"{self._target.name}: errors at the layers' own outputs")
        pending = set(names)
        with hooked(self._target, measure, lambda layer: layer.name in pending):
            self._target.run(feed)
        return errors

    @contextmanager
    def _quantized(self, names: Sequence[str]) -> Iterator[None]:
        """The target with these layers quantized, and as it was afterwards."""
        try:
            for name in names:
                layer = self._layers[name]
                replacement = quantized_layer(layer.module, self._ranges[name], self._precision)
                replace_layer(self._target.module, layer.path, replacement)
            yield
        finally:
            for name in names:
                replace_layer(self._target.module, self._layers[name].path, self._layers[name].module)

    def _cosines(self, feeds: Sequence[int], kept: Mapping[str, str], label: str) -> list[float]:
        """The cosine of each of these feeds with all but `kept` quantized."""
        with self._quantized([name for name in self._ranges if name not in kept]):
            cosines = []
            for number, index in enumerate(feeds, 1):
                self._report(f"{self._target.name}: {label}, feed {number} of {len(feeds)}")
                cosines.append(
                    compare(_array(self._target.run(self._feeds[index])), _array(self._reference[index])).cosine
                )
        return cosines

    def _greedy(
        self, errors: list[LayerError], kept: dict[str, str], every: list[float]
    ) -> tuple[dict[str, str], float]:
        """Add as few more layers in `kept` as reach what is aimed at, by error per FLOP, or as many as the coverage
        allows; the lowest cosine then.

        How many is found by bisection on the two worst feeds, and the result is checked on all of them.
        """
        sought = 1 - (1 - self._options.aimed_cosine) * _MARGIN
        if min(every) >= sought:
            return kept, min(every)
        order = sorted(errors, key=lambda e: -e.error / self.flops[e.name])
        most = self._most(order, kept)
        worst = sorted(range(len(every)), key=lambda index: every[index])[:2]

        def with_first(count: int) -> dict[str, str]:
            return kept | {e.name: "accuracy: one of the highest errors per FLOP" for e in order[:count]}

        low, high = 0, most
        for number in range(_ROUNDS):
            # Errors add up: begin where the sum of what is left is what the target allows.
            middle = (low + high) // 2 if number else self._guess(order, most, every, sought)
            if not low < middle < high:
                break
            cosines = self._cosines(worst, with_first(middle), f"round {number + 1}, {middle} layers kept")
            low, high = (low, middle) if min(cosines) >= sought else (middle, high)
        for count in sorted({high, most}):
            cosine = min(self._cosines(range(len(self._feeds)), with_first(count), f"{count} layers kept"))
            if cosine >= (self._options.min_cosine if count == most else self._options.aimed_cosine):
                return with_first(count), cosine
        raise AccuracyError(
            f"{self._target.name}: {self._precision} reaches cosine {cosine:.5f} with "
            f"{100 * self._coverage(with_first(most)):.1f} % of the FLOPs quantized; "
            f"{self._options.min_cosine} is wanted. "
            "Allow less coverage (--allow-partial), calibrate with more samples, or export fp16"
        )

    def _most(self, order: Sequence[LayerError], kept: Mapping[str, str]) -> int:
        """How many layers of `order` can be kept before the coverage falls below the lowest allowed."""
        coverage = self._coverage(kept)
        for count, error in enumerate(order):
            coverage -= self.flops[error.name] / self._total
            if coverage < self._options.min_coverage:
                return count
        return len(order)

    def _guess(self, order: Sequence[LayerError], most: int, every: Sequence[float], sought: float) -> int:
        left = total = sum(e.error for e in order)
        for count, error in enumerate(order[:most]):
            if left <= total * (1 - sought) / (1 - min(every)):
                return count
            left -= error.error
        return most


def _grouped(names: Sequence[str], budget: int) -> dict[str, list[str]]:
    """The layers by block, or by level of the network where there are more blocks than may be measured."""
    for group_of in (_block_of, _level_of):
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(group_of(name), []).append(name)
        if len(groups) <= budget:
            break
    return groups


def _level_of(name: str) -> str:
    """The level that a layer belongs to: `down_blocks.1`, `decoder.up_blocks.0`, `mid_block` and the like."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part in ("down_blocks", "up_blocks"):
            return ".".join(parts[: index + 2])
        if part == "mid_block":
            return ".".join(parts[: index + 1])
    return name


def _block_of(name: str) -> str:
    """The block that a layer belongs to: `down_blocks.0.attentions.1` and the like."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part in ("resnets", "attentions", "motion_modules", "downsamplers", "upsamplers"):
            return ".".join(parts[: index + 2])
    return name


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.cpu().numpy())
