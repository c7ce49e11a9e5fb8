"""One exported graph on ONNX Runtime against its module: the figures, the norms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from torch import nn

from lsx.bundle.manifest import ParityEntry, TensorEntry
from lsx.core.tensors import FloatPrecision
from lsx.engines.onnxruntime import OnnxOptions, engine_from_onnx
from lsx.errors import ParityError
from lsx.export import parity
from lsx.export.onnx_file import widen
from lsx.graphs.graph_specs import GraphSpec

__all__ = ["Cases", "GraphCheck", "check_norms", "norms_of"]

Cases = list[dict[str, NDArray[Any]]]
"""Arrays by tensor, one dict a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCheck:
    """One graph on ONNX Runtime's CPU provider against its module."""

    spec: GraphSpec
    path: Path
    """The ONNX file, in the form that ONNX Runtime loads."""
    precision: FloatPrecision
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    quantized: bool
    """Whether it has Q/DQ; then it is compared on recorded samples, with a loose tolerance."""
    folder: Path
    """The folder for temporary files."""

    def entries(self, feeds: Cases, expected: Cases, rounded: Cases) -> list[ParityEntry]:
        """Every figure of every output. Raises ParityError for one of another shape.

        A graph of lower precision is checked twice: as it is, against the float32 module; and in float32 arithmetic,
        against the module with its weights rounded to that precision. The second has float32's limits, so a fault that
        the first would take for rounding is found as surely as in float32.
        """
        entries: list[ParityEntry] = []
        widened = self.folder / self.path.name
        if rounded:
            widen(self.path, widened)
            entries += self._measure(
                widened, feeds, rounded, "fp32", "in float32 arithmetic, against the float32 module of rounded weights"
            )
        if self.precision == "bf16":
            method = (
                "bf16 weights in float32 arithmetic (onnxruntime has no bf16 CPU kernels), against the float32 module"
            )
            entries += self._measure(widened, feeds, expected, self.precision, method)
        else:
            method = "onnxruntime CPU against the float32 module"
            method += ", on a recorded sample" if self.quantized else ""
            entries += self._measure(self.path, feeds, expected, self.precision, method)
        return entries

    def _measure(
        self, path: Path, feeds: Cases, expected: Cases, precision: FloatPrecision, method: str
    ) -> list[ParityEntry]:
        specs = [[tensor.spec() for tensor in tensors] for tensors in (self.inputs, self.outputs)]
        if path != self.path:
            specs = [[spec.as_float32() for spec in group] for group in specs]
        measured = []
        with engine_from_onnx(path, self.spec.name, specs[0], specs[1], OnnxOptions(optimise=False)) as engine:
            for feed, outputs in zip(feeds, expected, strict=True):
                results = engine.infer(feed)
                for name, array in outputs.items():
                    if results[name].shape != array.shape:
                        raise ParityError(
                            f"{self.spec.name}: output {name} is {results[name].shape}, its module gives {array.shape}"
                        )
                    limit = parity.tolerance_of(precision, str(array.dtype), deep=self.spec.deep)
                    if self.quantized:
                        limit = parity.QUANTIZED
                    measured.append(parity.measure(name, results[name], array, limit, method=method))
        return measured


_NORMS = {"GroupNormalization": nn.GroupNorm, "LayerNormalization": nn.LayerNorm}


def norms_of(module: nn.Module) -> Counter[str]:
    """How many norms of each kind and epsilon a module has."""
    kinds = [(kind, part) for part in module.modules() for kind, norm in _NORMS.items() if isinstance(part, norm)]
    return Counter(f"{kind} of epsilon {getattr(part, 'eps', 0.0):.3g}" for kind, part in kinds)


def check_norms(graph: str, model: ir.Model, norms: Counter[str]) -> None:
    """Raise ParityError where a graph has norms of another epsilon than its module.

    On inputs of ordinary spread a wrong epsilon changes less than rounding does; on a masked frame it shows.
    """
    found = Counter(
        f"{node.op_type} of epsilon {node.attributes['epsilon'].as_float():.3g}"
        for node in model.graph
        if node.op_type in _NORMS
    )
    for name, count in found.items():
        if count > norms[name]:
            raise ParityError(
                f"{graph}: the graph has {count} {name}, its module {norms[name]}. The bundle was not written; please "
                "report it with your torch version"
            )
