"""The layers of a failing graph that are to blame: its ONNX file against its module, output by output."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Dtype, TensorSpec
from lsx.engines.onnxruntime import OnnxOptions, engine_from_onnx
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.modules import SHARED_HALVES, GuidedGraph
from lsx.models.checkpoint import Checkpoint
from lsx.quantization.coverage import operators_of_weights
from lsx.verify.reference import GraphCase
from lsx.verify.report import LayerFigures

__all__ = ["worst_layers"]

_AT_ONCE = 24  # layers whose outputs are held at a time
_SHOWN = 5

_DTYPES: dict[Any, Dtype] = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}


def worst_layers(bundle: Bundle, case: GraphCase, checkpoint: Checkpoint) -> list[LayerFigures]:
    """The layers of `case`'s graph whose output is furthest off for what came before them, worst first.

    Only layers whose weights kept their names in the ONNX file are looked at: convolutions, quantized layers, and most
    linear layers with a bias. Empty where the graph has none.
    """
    module = GRAPHS[case.graph].build(checkpoint).eval()
    graph = ir.load(_graph_file(bundle, case.graph))
    if SHARED_HALVES in graph.metadata_props and isinstance(module, GuidedGraph):
        module.share_halves(bundle.model.frames)
    expected_of = _Outputs(module, case)
    values = _layer_values(graph, module)
    errors: list[tuple[str, float]] = []
    order = [name for name in expected_of.order if name in values]
    quantized = bundle.graph(case.graph).coverage is not None
    if quantized:  # SmoothQuant's factors are folded into what these give
        order = [name for name in order if not name.endswith((".to_v", ".ff.net.0.proj"))]
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        expected = expected_of.run(set(some))
        results = _run_with_outputs(bundle, case, {name: values[name] for name in some}, expected)
        for name in some:
            error = float(
                np.linalg.norm(results[name] - expected[name]) / max(float(np.linalg.norm(expected[name])), 1e-30)
            )
            errors.append((name, error))
    highest = 0.05 if quantized else 1e-4  # what rounding alone does to a layer
    rows = []
    for name, error in errors:
        rows.append(LayerFigures(name=name, error=error, jump=error / highest))
        highest = max(highest, error)
    return sorted(rows, key=lambda row: -row.jump)[:_SHOWN]


def _graph_file(bundle: Bundle, graph: str) -> Path:
    """The form of a graph whose layers lie as the module's do: TensorRT's has tokens in another order."""
    return bundle.path / bundle.files(graph, "onnxruntime")[0].path


class _Outputs:
    """The module's layers' outputs in one forward, without their bias."""

    def __init__(self, module: nn.Module, case: GraphCase) -> None:
        self._module = module
        self._feed = [torch.from_numpy(array) for array in case.feed.values()]
        self._layers = {n: m for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        self.order: list[str] = []
        self.run(set(), order=self.order)

    def run(self, wanted: set[str], order: list[str] | None = None) -> dict[str, NDArray[Any]]:
        """Outputs by layer; linear layers' before their bias is added."""
        values: dict[str, NDArray[Any]] = {}

        def attach(name: str, layer: nn.Module) -> Any:
            def show(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
                if order is not None:
                    order.append(name)
                if name in wanted:
                    bias = getattr(layer, "bias", None)
                    plain = out if bias is None or isinstance(layer, nn.Conv2d) else out - bias
                    values[name] = plain.numpy()

            return layer.register_forward_hook(show)

        handles = [attach(name, layer) for name, layer in self._layers.items()]
        try:
            with torch.inference_mode():
                self._module(*self._feed)
        finally:
            for handle in handles:
                handle.remove()
        return values


def _layer_values(model: ir.Model, module: nn.Module) -> dict[str, str]:
    """The ONNX value that holds each layer's output, linear layers' before the bias."""
    layers = dict(module.named_modules())
    values = {}
    for weight, node in operators_of_weights(model).items():
        path, _, kind = weight.rpartition(".")
        if kind in ("weight", "codes") and path in layers and node.op_type in ("Conv", "MatMul"):
            values[path] = str(node.outputs[0].name)
    for name, value in model.graph.initializers.items():  # a folded transpose took the weight's name: go by the bias
        path, _, kind = name.rpartition(".")
        uses = [use.node for use in value.uses()]
        if kind != "bias" or path in values or not isinstance(layers.get(path), nn.Linear):
            continue
        if len(uses) == 1 and uses[0].op_type == "Add":
            products = [v for v in uses[0].inputs if v is not None and v is not value and v.producer() is not None]
            if products and products[0].producer().op_type == "MatMul":  # type: ignore[union-attr]  # tested above
                values[path] = str(products[0].name)
    return values


def _run_with_outputs(
    bundle: Bundle, case: GraphCase, values: dict[str, str], like: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The ONNX file's values, by layer, in ONNX Runtime."""
    entry = bundle.graph(case.graph)
    source = _graph_file(bundle, case.graph)
    model = ir.load(source)
    by_name = {str(v.name): v for node in model.graph for v in node.outputs}
    outputs = []
    model.graph.outputs.clear()
    for name, value_name in values.items():
        value = by_name[value_name]
        if value.dtype is None:
            value.dtype = ir.DataType.FLOAT if entry.precision == "fp32" else ir.DataType.FLOAT16
        value.shape = None
        model.graph.outputs.append(value)
        outputs.append(TensorSpec(name=value_name, dtype=_DTYPES[value.dtype], shape=like[name].shape))
    # Beside the original, whose data files it refers to, and gone again.
    with tempfile.NamedTemporaryFile(suffix=".onnx", dir=source.parent, prefix=".layers-") as file:
        ir.save(model, file.name)
        inputs = [tensor.spec() for tensor in entry.inputs]
        axes = {
            axis: case.feed[t.name].shape[i] for t in inputs for i, axis in enumerate(t.shape) if isinstance(axis, str)
        }
        with engine_from_onnx(
            Path(file.name), case.graph, inputs, outputs, OnnxOptions(optimise=False), axes=axes
        ) as engine:
            results = engine.infer(case.feed)
    return {name: results[value] for name, value in values.items()}
