"""The form of a graph that ONNX Runtime computes best; TensorRT keeps the one that it fuses.

ONNX Runtime 1.31 has no kernel for GroupNormalization: it runs the function body of the standard, whose variance is
E[x^2] - E[x]^2 in float32 (onnxruntime#24538). On nearly constant input, which every masked frame is, that is off by
more than the deviation itself. Its CPU kernel of LayerNormalization subtracts the mean first, and where factor and bias
have fewer elements than what is normalised it sums in float64: 3e-7 from exact where PyTorch is 6e-5. And its kernel of
Attention writes down all scores of a forward at once; MultiHeadAttention's does it block by block.

Its CUDA kernel of LayerNormalization (Welford's sums, in float32) takes a factor for each element that is normalised
and no broadcast ones: there factor and bias come after it.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

__all__ = ["to_onnxruntime_form"]

_CONTRIB = "com.microsoft"


def to_onnxruntime_form(model: ir.Model, provider: Literal["cpu", "cuda"] = "cpu") -> bool:
    """Rewrite `model` in place; whether there was anything to rewrite. Its shapes must be known and fixed.

    Norms become Reshape, LayerNormalization over a group with a factor and a bias for each of its channels, Reshape,
    and for `cuda` Reshape, LayerNormalization, Reshape, Mul, Add; Attention becomes MultiHeadAttention.
    Raises RuntimeError where a shape is not known.
    """
    rewriter = _Rewriter(model)
    for node in list(model.graph):
        if node.op_type == "GroupNormalization":
            rewriter.norm(node, provider)
        elif node.op_type == "Attention" and node.domain == "":
            rewriter.attention(node)
    return rewriter.count > 0


class _Rewriter:
    def __init__(self, model: ir.Model) -> None:
        self._model, self._graph = model, model.graph
        self.count = 0

    def norm(self, node: ir.Node, provider: str) -> None:
        x, weight, bias = node.inputs
        if x is None or weight is None or bias is None or x.shape is None or not x.shape.is_static():
            raise RuntimeError(f"{node.name}: a GroupNormalization of unknown shape")
        shape = [int(n) for n in x.shape.numpy()]
        groups = node.attributes["num_groups"].as_int()
        width, area = shape[1] // groups, math.prod(shape[2:])
        attributes: dict[str, Any] = {"axis": 2, "epsilon": node.attributes["epsilon"].as_float(), "stash_type": 1}
        if provider == "cpu":
            grouped = self._reshape(x, [shape[0], groups, width, area], node)
            factors = [self._parameter(value, [1, groups, width, 1]) for value in (weight, bias)]
        else:
            grouped = self._reshape(x, [shape[0], groups, width * area], node)
            factors = [self._ones(width * area, node)]
        normal = self._node("LayerNormalization", [grouped, *factors], node, attributes)
        normal.shape = grouped.shape
        result = self._reshape(normal, shape, node)
        if provider == "cuda":
            for kind, value in (("Mul", weight), ("Add", bias)):
                result = self._node(kind, [result, self._parameter(value, [shape[1], *[1] * len(shape[2:])])], node)
        self._replace(node, result)

    def _ones(self, count: int, at: ir.Node) -> ir.Value:
        """Return as many ones, made when the graph is loaded instead of stored."""
        dtype = at.outputs[0].dtype or ir.DataType.FLOAT
        one = ir.tensor(np.ones(1, dtype.numpy()), dtype=dtype)
        node = self._node("ConstantOfShape", [self._initializer(np.array([count], np.int64))], at, {"value": one})
        node.shape = ir.Shape([count])
        return node

    def attention(self, node: ir.Node) -> None:
        plain = len([value for value in node.inputs if value is not None]) == 3 and len(node.outputs) == 1
        if not plain or "q_num_heads" not in node.attributes:
            return  # a mask, a cache, or heads as an axis of their own: MultiHeadAttention does not take those
        attributes: dict[str, int | float] = {"num_heads": node.attributes["q_num_heads"].as_int()}
        if "scale" in node.attributes:
            attributes["scale"] = node.attributes["scale"].as_float()
        self._model.graph.opset_imports[_CONTRIB] = 1
        replacement = self._node("MultiHeadAttention", list(node.inputs)[:3], node, attributes, domain=_CONTRIB)
        self._replace(node, replacement)

    def _node(
        self,
        kind: str,
        inputs: list[ir.Value | None],
        at: ir.Node,
        attributes: dict[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """The output of a new node before `at`, of the type and shape of the output of `at`."""
        node = ir.node(kind, inputs, attributes=attributes or {}, domain=domain)
        output, like = node.outputs[0], at.outputs[0]
        output.name = f"{like.name}_{kind.lower()}_{self.count}"
        if like.dtype is not None:
            output.dtype = like.dtype
        output.shape = like.shape
        self._graph.insert_before(at, node)
        self.count += 1
        return output

    def _reshape(self, value: ir.Value, shape: list[int], at: ir.Node) -> ir.Value:
        node = self._node("Reshape", [value, self._initializer(np.array(shape, np.int64))], at)
        node.shape = ir.Shape(shape)
        return node

    def _replace(self, node: ir.Node, value: ir.Value) -> None:
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def _initializer(self, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> ir.Value:
        return self._register(ir.tensor(array))

    def _register(self, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(name=f"onnxruntime_{len(self._graph.initializers)}", const_value=tensor)
        value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.numpy().shape)
        self._graph.register_initializer(value)
        return value

    def _parameter(self, weight: ir.Value, shape: list[int]) -> ir.Value:
        """A parameter [C] in another shape."""
        if weight.const_value is None:
            raise RuntimeError(f"{weight.name}: a norm's parameter that is not constant")
        array = weight.const_value.numpy()
        return self._register(ir.tensor(array.reshape(shape), dtype=weight.const_value.dtype))
