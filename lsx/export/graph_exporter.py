"""One graph after the other: built, traced, written, and checked on ONNX Runtime against its float32 module."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from lsx.engines.onnxruntime import engine_from_onnx
from lsx.errors import ExportError, ParityError
from lsx.export import parity
from lsx.export.faces.models import FaceSource, face_graphs
from lsx.export.graphs import GraphSpec
from lsx.export.onnx_file import OPSET, WeightStore, free_leading_axis, save_model, trace, widen
from lsx.export.onnxruntime_form import to_onnxruntime_form
from lsx.export.precision import FP32_ISLANDS, round_to_precision, to_precision, torch_dtype
from lsx.export.quantisation import Quantisation, check_coverage
from lsx.export.recipe import apply_recipe
from lsx.files import sha256_of
from lsx.manifest import (
    FileEntry,
    GraphEntry,
    ParityEntry,
    TensorEntry,
)
from lsx.models.checkpoint import Checkpoint
from lsx.specs import (
    Dtype,
    FloatPrecision,
    ModelSpec,
    Precision,
    base_precision,
)

__all__ = ["GraphExporter"]

_Cases = list[dict[str, NDArray[Any]]]

_LOW: dict[FloatPrecision, Dtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class GraphExporter:
    """Writes the graphs of one bundle into `folder`."""

    def __init__(
        self, checkpoint: Checkpoint, folder: Path, precision: Precision, quantisation: Quantisation | None
    ) -> None:
        self.checkpoint = checkpoint
        self.model: ModelSpec = checkpoint.spec
        self.folder = folder
        self.precision = base_precision(precision)
        self.quantisation = quantisation
        self.store = WeightStore(folder / "onnx")
        self.parity: dict[str, list[ParityEntry]] = {}
        """What was measured so far, of a graph that failed too."""

    def file(self, path: str) -> FileEntry:
        full = self.folder / path
        return FileEntry(path=path, sha256=sha256_of(full), size=full.stat().st_size)

    def graph(self, spec: GraphSpec, report: Callable[[str], None]) -> GraphEntry:
        recipe = None if self.quantisation is None else self.quantisation.recipe_of(spec.name)
        report(f"{spec.name}: reference")
        module = spec.build(self.checkpoint)
        module.eval().requires_grad_(False)
        norms = _norms_of(module)
        if self.quantisation is None or recipe is None:
            feeds = [spec.feed(self.model, module, n) for n in spec.checked]
        else:
            feeds = [dict(self.quantisation.feeds[spec.name])]  # ranges are those of real calls
        expected = [_run_module(module, feed, spec.outputs) for feed in feeds]
        rounded: list[dict[str, NDArray[Any]]] = []
        if recipe is not None:
            apply_recipe(module, recipe)
        elif self.precision != "fp32":
            round_to_precision(module, spec.name, self.precision)
            rounded = [_run_module(module, feed, spec.outputs) for feed in feeds]
        report(f"{spec.name}: tracing")
        to_precision(module, spec.name, self.precision)
        path = self.folder / "onnx" / f"{spec.name}.onnx"
        model, own_form = self._trace(spec, module)
        _check_norms(spec.name, model, norms)
        inputs = [self._tensor(spec, name, array) for name, array in feeds[0].items()]
        outputs = [self._tensor(spec, name, array) for name, array in expected[0].items()]
        report(f"{spec.name}: writing")
        coverage = None
        if recipe is not None and self.quantisation is not None:
            coverage = check_coverage(spec.name, model, module, recipe, self.quantisation.flops[recipe.part])
        del module
        data = save_model(model, path, self.store)
        operators = Counter(node.op_type for node in model.graph)
        del model
        onnx.checker.check_model(str(path))
        runtime_path = path
        if own_form is not None:
            runtime_path = path.with_name(f"{spec.name}.onnxruntime.onnx")
            data = tuple(sorted({*data, *save_model(own_form, runtime_path, self.store)}))
            del own_form
        report(f"{spec.name}: checking")
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            check = _Check(self, spec, runtime_path, inputs, outputs, recipe is not None, Path(temporary))
            measured = check.entries(feeds, expected, rounded)
        return GraphEntry(
            file=self.file(f"onnx/{path.name}"),
            onnxruntime=None if runtime_path == path else self.file(f"onnx/{runtime_path.name}"),
            data=tuple(f"onnx/{name}" for name in data),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            precision=self.precision if recipe is None else recipe.precision,
            opset=OPSET,
            operators=dict(sorted(operators.items())),
            islands=tuple(
                f"{i.module}: {i.reason}" for i in FP32_ISLANDS if i.graph == spec.name and self.precision != "fp32"
            ),
            parity=tuple(measured),
            coverage=coverage,
        )

    def _trace(self, spec: GraphSpec, module: nn.Module) -> tuple[ir.Model, ir.Model | None]:
        """The graph, and the form of it that ONNX Runtime runs where that is another."""
        feed = spec.feed(self.model, module, 2)
        low = torch_dtype(self.precision)
        arguments = [
            torch.from_numpy(array).to(low) if name in spec.low else torch.from_numpy(array)
            for name, array in feed.items()
        ]
        if spec.axis is None or spec.leading:
            dynamic = None
        else:
            dynamic = [{spec.varying[name]: spec.axis} if name in spec.varying else None for name in feed]
        try:
            model = trace(module, arguments, list(feed), spec.outputs, dynamic)
            if spec.leading and spec.axis is not None:
                own_form = model.clone()
                rewritten = to_onnxruntime_form(own_form)
                for form in (model, own_form) if rewritten else (model,):
                    free_leading_axis(form, spec.axis, spec.varying)
                return model, own_form if rewritten else None
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExportError(
                f"{spec.name}: torch {torch.__version__} could not export it: {first}. "
                "Try the torch version of lsx's constraints file"
            ) from error
        return model, None

    def _tensor(self, spec: GraphSpec, name: str, array: NDArray[Any]) -> TensorEntry:
        shape: list[int | str] = list(array.shape)
        if spec.axis is not None and name in spec.varying:
            shape[spec.varying[name]] = spec.axis
        dtype: Dtype = "uint8" if array.dtype == np.uint8 else "float32"
        if name in spec.low:
            dtype = _LOW[self.precision]
        elif name in spec.half and self.precision != "fp32":
            dtype = "float16"
        return TensorEntry(name=name, dtype=dtype, shape=tuple(shape))

    def faces(self, source: FaceSource) -> dict[str, GraphEntry]:
        """The two face graphs. They are checked when built; their weights are small and stay inside."""
        entries = {}
        for name, model in face_graphs(source).items():
            path = self.folder / "onnx" / f"{name}.onnx"
            onnx.save(model, str(path))
            entries[name] = GraphEntry(
                file=self.file(f"onnx/{name}.onnx"),
                inputs=tuple(_entry_of(value) for value in model.graph.input),
                outputs=tuple(_entry_of(value) for value in model.graph.output),
                precision="fp32",
                opset=OPSET,
                operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
            )
        return entries


@dataclass(slots=True, kw_only=False)
class _Check:
    """One graph on ONNX Runtime's CPU provider against its module."""

    exporter: GraphExporter
    spec: GraphSpec
    path: Path
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    quantised: bool
    folder: Path

    def entries(self, feeds: _Cases, expected: _Cases, rounded: _Cases) -> list[ParityEntry]:
        """Every figure of every output. Raises ParityError.

        A graph of lower precision is checked twice: as it is, against the float32 module; and in float32 arithmetic,
        against the module with its weights rounded to that precision. The second has float32's limits, so a fault that
        the first would take for rounding is found as surely as in float32.
        """
        exporter, precision = self.exporter, self.exporter.precision
        made: list[ParityEntry] = []
        widened = self.folder / self.path.name
        if precision != "fp32" and (rounded or precision == "bf16"):
            widen(self.path, widened)
        if rounded:
            made += self._measure(
                widened, feeds, rounded, "fp32", "in float32 arithmetic, against the float32 module of rounded weights"
            )
        if precision == "bf16":
            method = (
                "bf16 weights in float32 arithmetic (onnxruntime has no bf16 CPU kernels), against the float32 module"
            )
            made += self._measure(widened, feeds, expected, precision, method)
        else:
            method = "onnxruntime CPU against the float32 module"
            method += ", on a recorded call" if self.quantised else ""
            made += self._measure(self.path, feeds, expected, precision, method)
        exporter.parity[self.spec.name] = made
        parity.judge(self.spec.name, made)
        return made

    def _measure(
        self, path: Path, feeds: _Cases, expected: _Cases, precision: FloatPrecision, method: str
    ) -> list[ParityEntry]:
        specs = [[tensor.spec() for tensor in tensors] for tensors in (self.inputs, self.outputs)]
        if path != self.path:
            specs = [[spec.as_float32() for spec in group] for group in specs]
        made = []
        with engine_from_onnx(path, self.spec.name, *specs, optimise=False) as engine:
            for feed, wanted in zip(feeds, expected, strict=True):
                results = engine.infer(feed)
                for name, array in wanted.items():
                    if results[name].shape != array.shape:
                        raise ParityError(
                            f"{self.spec.name}: output {name} is {results[name].shape}, its module gives {array.shape}"
                        )
                    dtype = str(array.dtype)
                    limit = parity.tolerance_of(precision, dtype, deep=self.spec.deep)
                    if self.quantised:
                        limit = parity.QUANTISED
                    made.append(parity.measure(name, results[name], array, limit, method=method))
        return made


_NORMS = {"GroupNormalization": nn.GroupNorm, "LayerNormalization": nn.LayerNorm}


def _norms_of(module: nn.Module) -> Counter[str]:
    """How many norms of each kind and epsilon a module has."""
    kinds = [(kind, part) for part in module.modules() for kind, norm in _NORMS.items() if isinstance(part, norm)]
    return Counter(f"{kind} of epsilon {getattr(part, 'eps', 0.0):.3g}" for kind, part in kinds)


def _check_norms(graph: str, model: ir.Model, norms: Counter[str]) -> None:
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


def _run_module(module: nn.Module, feed: dict[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    with torch.inference_mode():
        result = module(*(torch.from_numpy(array) for array in feed.values()))
    results = result if isinstance(result, tuple) else (result,)
    return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}


def _entry_of(value: onnx.ValueInfoProto) -> TensorEntry:
    kind = value.type.tensor_type
    dtype: Dtype = "uint8" if kind.elem_type == onnx.TensorProto.UINT8 else "float32"
    return TensorEntry(name=value.name, dtype=dtype, shape=tuple(d.dim_value for d in kind.shape.dim))
