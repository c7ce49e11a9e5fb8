"""One graph after the other: built, traced, written, and checked on ONNX Runtime against its float32 module."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from lsx.engines.onnxruntime import engine_from_onnx
from lsx.errors import ExportError
from lsx.export import parity
from lsx.export.faces.models import FaceSource, face_graphs
from lsx.export.graphs import QUANTISED, GraphSpec, Tolerance
from lsx.export.onnx_file import OPSET, WeightStore, free_leading_axis, save_model, trace, widen
from lsx.export.precision import FP32_ISLANDS, to_precision, torch_dtype
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
    TensorSpec,
    base_precision,
)

__all__ = ["GraphExporter"]

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

    def file(self, path: str) -> FileEntry:
        full = self.folder / path
        return FileEntry(path=path, sha256=sha256_of(full), size=full.stat().st_size)

    def graph(self, spec: GraphSpec, report: Callable[[str], None]) -> GraphEntry:
        recipe = None if self.quantisation is None else self.quantisation.recipe_of(spec.name)
        report(f"{spec.name}: reference")
        module = spec.build(self.checkpoint)
        module.eval().requires_grad_(False)
        if self.quantisation is None or recipe is None:
            feeds = [spec.feed(self.model, module, n) for n in spec.checked]
        else:
            feeds = [dict(self.quantisation.feeds[spec.name])]  # ranges are those of real calls
        expected = [_run_module(module, feed, spec.outputs) for feed in feeds]
        if recipe is not None:
            apply_recipe(module, recipe)
        report(f"{spec.name}: tracing")
        to_precision(module, spec.name, self.precision)
        path = self.folder / "onnx" / f"{spec.name}.onnx"
        model = self._trace(spec, module)
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
        report(f"{spec.name}: checking")
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            runnable, method = self._runnable(path, Path(temporary))
            if recipe is not None:
                method += ", on a recorded call"
            tolerance = spec.tolerance[self.precision] if recipe is None else QUANTISED
            measured = self._check(
                spec, runnable, inputs, outputs, list(zip(feeds, expected, strict=True)), method, tolerance
            )
        return GraphEntry(
            file=self.file(f"onnx/{path.name}"),
            data=tuple(f"onnx/{name}" for name in data),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            precision=self.precision if recipe is None else recipe.precision,
            opset=OPSET,
            operators=dict(sorted(operators.items())),
            islands=tuple(
                f"{i.module}: {i.reason}" for i in FP32_ISLANDS if i.graph == spec.name and self.precision != "fp32"
            ),
            parity=measured,
            coverage=coverage,
        )

    def _trace(self, spec: GraphSpec, module: nn.Module) -> ir.Model:
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
                free_leading_axis(model, spec.axis, spec.varying)
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExportError(
                f"{spec.name}: torch {torch.__version__} could not export it: {first}. "
                "Try the torch version of lsx's constraints file"
            ) from error
        return model

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

    def _runnable(self, path: Path, temporary: Path) -> tuple[Path, str]:
        """The file that is checked on ONNX Runtime's CPU provider, and how that is said in the manifest."""
        if self.precision != "bf16":
            return path, "onnxruntime CPU against the float32 module"
        widened = temporary / path.name
        widen(path, widened)
        return (
            widened,
            "bf16 weights in float32 arithmetic (onnxruntime has no bf16 CPU kernels), against the float32 module",
        )

    def _check(
        self,
        spec: GraphSpec,
        path: Path,
        inputs: list[TensorEntry],
        outputs: list[TensorEntry],
        cases: list[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]],
        method: str,
        tolerance: Tolerance,
    ) -> tuple[ParityEntry, ...]:
        engine = engine_from_onnx(
            path, spec.name, *(_runnable_specs(t, self.precision) for t in (inputs, outputs)), optimise=False
        )
        entries = []
        with engine:
            for feed, expected in cases:
                measured = parity.check(spec.name, engine.infer(feed), expected, tolerance)
                entries += [
                    ParityEntry(
                        output=name,
                        method=method,
                        max_error=found.max_error,
                        mean_error=found.mean_error,
                        cosine=found.cosine,
                        tolerance_max=tolerance.max,
                    )
                    for name, found in measured.items()
                ]
        return tuple(entries)

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


def _run_module(module: nn.Module, feed: dict[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    with torch.inference_mode():
        result = module(*(torch.from_numpy(array) for array in feed.values()))
    results = result if isinstance(result, tuple) else (result,)
    return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}


def _runnable_specs(tensors: list[TensorEntry], precision: Precision) -> list[TensorSpec]:
    """The I/O of the file that is checked: bf16 graphs are widened for that."""
    specs = [tensor.spec() for tensor in tensors]
    if precision != "bf16":
        return specs
    return [
        TensorSpec(name=s.name, dtype="float32" if s.dtype == "bfloat16" else s.dtype, shape=s.shape) for s in specs
    ]


def _entry_of(value: onnx.ValueInfoProto) -> TensorEntry:
    kind = value.type.tensor_type
    dtype: Dtype = "uint8" if kind.elem_type == onnx.TensorProto.UINT8 else "float32"
    return TensorEntry(name=value.name, dtype=dtype, shape=tuple(d.dim_value for d in kind.shape.dim))
