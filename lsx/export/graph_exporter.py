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

from lsx.bundle.manifest import FileEntry, Form, GraphEntry, ParityEntry, TensorEntry
from lsx.core.model_spec import ModelSpec
from lsx.core.tensors import Dtype, FloatPrecision, Precision, base_precision
from lsx.errors import ExportError
from lsx.export import parity
from lsx.export.face_models.models import FaceSource, face_graphs
from lsx.export.graph_check import Cases, GraphCheck, check_norms, norms_of
from lsx.export.onnx_file import OPSET, WeightStore, save_model
from lsx.export.onnxruntime_form import to_onnxruntime_form
from lsx.export.tensorrt_form import to_tensorrt_form
from lsx.export.tracing import free_leading_axis, trace
from lsx.graphs.graph_specs import GraphSpec, in_halves, sync_specs
from lsx.graphs.modules import SHARED_HALVES, GraphModule, GuidedGraph
from lsx.graphs.precision import islands_of, round_to_precision, to_precision, torch_dtype
from lsx.models.checkpoint import Checkpoint
from lsx.models.stable_syncnet import StableSyncNet
from lsx.quantization.coverage import Quantization, check_coverage
from lsx.quantization.recipe import Recipe, apply_recipe

__all__ = ["GraphExporter"]

_LOW: dict[FloatPrecision, Dtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    """Inputs, and what the module gives for them in float32, before and after its weights are rounded."""

    feeds: Cases
    expected: Cases
    rounded: Cases
    """Empty for float32 and for quantized graphs."""


class GraphExporter:
    """Writes the graphs of one bundle into `folder`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        precision: Precision,
        quantization: Quantization | None,
        *,
        share_halves: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.model: ModelSpec = checkpoint.spec
        self.folder = folder
        self.asked = precision
        """The bundle's."""
        self.precision = base_precision(precision)
        """The precision of its graphs' tensors, where they are not quantized."""
        self.quantization = quantization
        self.share_halves = share_halves
        """Whether guidance's halves share work, see ExportOptions."""
        self.store = WeightStore(folder / "onnx")
        self.parity: dict[str, list[ParityEntry]] = {}
        """What was measured so far, of a graph that failed too."""

    def file(self, path: str) -> FileEntry:
        return FileEntry.of(self.folder, path)

    def graph(self, spec: GraphSpec, report: Callable[[str], None]) -> GraphEntry:
        """One graph: reference, trace, files, check. Raises ExportError, ParityError.

        report : called with what is being done.
        """
        recipe = None if self.quantization is None else self.quantization.recipe_of(spec.name)
        report(f"{spec.name}: reference")
        module = spec.build(self.checkpoint)
        module.eval().requires_grad_(False)
        norms = norms_of(module)
        reference = self._reference(spec, module, recipe)
        report(f"{spec.name}: tracing")
        halves = self._take_form(spec, module)
        model, forms = self._trace(spec, module)
        for form in (model, *forms.values()) if halves else ():
            form.metadata_props[SHARED_HALVES] = "yes"
        check_norms(spec.name, model, norms)
        coverage = None
        if recipe is not None and self.quantization is not None:
            coverage = check_coverage(spec.name, model, module, recipe, self.quantization.flops[recipe.target])
        del module
        report(f"{spec.name}: writing")
        operators = Counter(node.op_type for node in model.graph)
        paths, data = self._write(spec.name, {"file": model, **forms})
        del model, forms
        report(f"{spec.name}: checking")
        inputs = tuple(self._tensor(spec, name, array) for name, array in reference.feeds[0].items())
        outputs = tuple(self._tensor(spec, name, array) for name, array in reference.expected[0].items())
        self._check(spec, paths, inputs, outputs, reference, quantized=recipe is not None)
        return GraphEntry(
            **{form: self.file(f"onnx/{path.name}") for form, path in paths.items()},
            data=tuple(f"onnx/{name}" for name in data),
            inputs=inputs,
            outputs=outputs,
            precision=self.precision if recipe is None else recipe.precision,
            opset=OPSET,
            operators=dict(sorted(operators.items())),
            islands=tuple(f"{i.module}: {i.reason}" for i in islands_of(spec.name) if self.precision != "fp32"),
            parity=tuple(self.parity[spec.name]),
            coverage=coverage,
        )

    def _take_form(self, spec: GraphSpec, module: GraphModule) -> bool:
        """Give `module` the form that is traced; whether it shares what guidance's halves have in common."""
        to_precision(module, spec.name, self.precision)
        if not self.share_halves or not isinstance(module, GuidedGraph):
            return False
        module.share_halves(self.model.frames)
        return True

    def _reference(self, spec: GraphSpec, module: GraphModule, recipe: Recipe | None) -> _Reference:
        """What the module gives before it is changed; it is left with the weights that the graph will have."""
        if recipe is None and self.share_halves and isinstance(module, GuidedGraph):
            feeds = [in_halves(spec.example_inputs(self.model, module, 2))]
        elif self.quantization is None or recipe is None:
            feeds = [spec.example_inputs(self.model, module, n) for n in spec.parity_lengths]
        else:
            feeds = [dict(self.quantization.feeds[spec.name])]  # ranges are those of real samples
        expected = [_run_module(module, feed, spec.outputs) for feed in feeds]
        rounded: Cases = []
        if recipe is not None:
            apply_recipe(module, recipe)
        elif self.precision != "fp32":
            round_to_precision(module, spec.name, self.precision)
            rounded = [_run_module(module, feed, spec.outputs) for feed in feeds]
        return _Reference(feeds, expected, rounded)

    def _write(self, name: str, forms: dict[Form, ir.Model]) -> tuple[dict[Form, Path], tuple[str, ...]]:
        """Write every form of a graph; returns their files, and the data files that they refer to."""
        folder = self.folder / "onnx"
        paths: dict[Form, Path] = {}
        data: set[str] = set()
        for form, model in forms.items():
            own = name if form == "file" else f"{name}.{form.replace('_', '-')}"
            paths[form] = folder / f"{own}.onnx"
            data |= set(save_model(model, paths[form], self.store))
        onnx.checker.check_model(str(paths["file"]))
        return paths, tuple(sorted(data))

    def _check(
        self,
        spec: GraphSpec,
        paths: dict[Form, Path],
        inputs: tuple[TensorEntry, ...],
        outputs: tuple[TensorEntry, ...],
        reference: _Reference,
        *,
        quantized: bool,
    ) -> None:
        """Run the graph on ONNX Runtime against its module. Raises ParityError; the figures are kept either way."""
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            check = GraphCheck(
                spec=spec,
                path=paths.get("onnxruntime", paths["file"]),
                precision=self.precision,
                inputs=list(inputs),
                outputs=list(outputs),
                quantized=quantized,
                folder=Path(temporary),
            )
            measured = check.entries(reference.feeds, reference.expected, reference.rounded)
        self.parity[spec.name] = measured
        parity.judge(spec.name, measured)

    def _trace(self, spec: GraphSpec, module: nn.Module) -> tuple[ir.Model, dict[Form, ir.Model]]:
        """The graph as TensorRT takes it, and the forms that ONNX Runtime runs, by provider, where those are others."""
        feed = spec.example_inputs(self.model, module, 2)
        graph_dtype = torch_dtype(self.precision)
        arguments = [
            torch.from_numpy(array).to(graph_dtype) if name in spec.graph_dtype_tensors else torch.from_numpy(array)
            for name, array in feed.items()
        ]
        if spec.axis is None or spec.free_axis_after_trace:
            dynamic = None
        else:
            dynamic = [{spec.varying[name]: spec.axis} if name in spec.varying else None for name in feed]
        try:
            model = trace(module, arguments, list(feed), spec.outputs, dynamic)
            if spec.free_axis_after_trace and spec.axis is not None:
                forms: dict[Form, ir.Model] = {"onnxruntime": model.clone(), "onnxruntime_cuda": model.clone()}
                rewritten = to_onnxruntime_form(forms["onnxruntime"])
                rewritten = to_onnxruntime_form(forms["onnxruntime_cuda"], "cuda") and rewritten
                forms = forms if rewritten else {}
                to_tensorrt_form(model)
                for form in (model, *forms.values()):
                    free_leading_axis(form, spec.axis, spec.varying)
                return model, forms
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExportError(
                f"{spec.name}: torch {torch.__version__} could not export it: {first}. "
                "Try the torch version of lsx's constraints file"
            ) from error
        return model, {}

    def _tensor(self, spec: GraphSpec, name: str, array: NDArray[Any]) -> TensorEntry:
        shape: list[int | str] = list(array.shape)
        if spec.axis is not None and name in spec.varying:
            shape[spec.varying[name]] = spec.axis
        dtype: Dtype = "uint8" if array.dtype == np.uint8 else "float32"
        if name in spec.graph_dtype_tensors:
            dtype = _LOW[self.precision]
        elif name in spec.always_fp16 and self.precision != "fp32":
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

    def sync(self, network: StableSyncNet) -> dict[str, GraphEntry]:
        """StableSyncNet's two graphs, float32 whatever the bundle's precision. Raises ExportError, ParityError."""
        own = GraphExporter(self.checkpoint, self.folder, "fp32", None)
        entries = {spec.name: own.graph(spec, lambda _: None) for spec in sync_specs(network)}
        self.parity |= own.parity
        return entries


def _run_module(module: nn.Module, feed: dict[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    with torch.inference_mode():
        result = module(*(torch.from_numpy(array) for array in feed.values()))
    results = result if isinstance(result, tuple) else (result,)
    return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}


def _entry_of(value: onnx.ValueInfoProto) -> TensorEntry:
    kind = value.type.tensor_type
    dtype: Dtype = "uint8" if kind.elem_type == onnx.TensorProto.UINT8 else "float32"
    return TensorEntry(name=value.name, dtype=dtype, shape=tuple(d.dim_value for d in kind.shape.dim))
