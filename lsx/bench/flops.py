"""FLOPs and bytes of a graph, counted from its ONNX file. Needs the `export` extra; weights are not read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import shape_inference

from lsx.bundle.bundle import Bundle

__all__ = ["GraphCost", "graph_cost", "graph_cost_of_file"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCost:
    """What one run of a graph takes at least."""

    flops: float
    """Multiply-adds x 2 of convolutions, linear layers and attention's matrix products."""
    bytes: float
    """Weights, inputs and outputs, each moved once: what no fusion can save."""
    by_operator: Mapping[str, float]
    """FLOPs by operator."""


def graph_cost(bundle: Bundle, graph: str, axes: Mapping[str, int]) -> GraphCost:
    """The cost of a bundle's graph with the axes that vary at these lengths."""
    return graph_cost_of_file(bundle.path / bundle.graph(graph).file.path, axes)


def graph_cost_of_file(path: Path, axes: Mapping[str, int]) -> GraphCost:
    """The cost of an ONNX file. Raises ValueError where a product's shape cannot be inferred."""
    model = onnx.load(str(path), load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_value = axes[dim.dim_param]  # one of a oneof: the name goes
    del model.graph.value_info[:]
    for node in model.graph.node:
        if node.op_type == "GroupNormalization":  # keeps its input's shape, which onnx 1.23 does not infer
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    shapes: dict[str, Shape] = {}
    sizes: dict[str, float] = {}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
            sizes[value.name] = math.prod(shapes[value.name]) * _bytes(value.type.tensor_type.elem_type)
    for weight in inferred.graph.initializer:
        shapes[weight.name] = tuple(weight.dims)
        sizes[weight.name] = math.prod(weight.dims) * _bytes(weight.data_type)
    counted: dict[str, float] = {}
    for node in inferred.graph.node:
        count = _COUNTED.get(node.op_type)
        if count is None:
            continue
        try:
            flops = count(node, shapes)
        except KeyError as error:
            raise ValueError(f"{path.name}: {node.op_type} {node.name}: no shape of {error}") from error
        counted[node.op_type] = counted.get(node.op_type, 0.0) + flops
    graph: Any = inferred.graph  # whether protobuf has types depends on what else is installed
    moved = [v.name for v in (*graph.input, *graph.output, *graph.initializer)]
    return GraphCost(flops=sum(counted.values()), bytes=sum(sizes[name] for name in moved), by_operator=counted)


def _bytes(kind: int) -> float:
    """Bytes of one element; FP8 and INT8 take one."""
    return float(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _convolution(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    return 2.0 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _product(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    return 2.0 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _linear(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    return 2.0 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]]) / shapes[node.output[0]][-1]


def _attention(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> float:
    """softmax(q k^T) v: two products, whether heads are an axis of their own or not."""
    q, k = shapes[node.input[0]], shapes[node.input[1]]
    rows, width = (q[2], q[1] * q[3]) if len(q) == 4 else (q[1], q[2])
    return 4.0 * q[0] * rows * k[-2] * width


_COUNTED: dict[str, Callable[[onnx.NodeProto, Mapping[str, Shape]], float]] = {
    "Conv": _convolution,
    "MatMul": _product,
    "Gemm": _linear,
    "Attention": _attention,
}
