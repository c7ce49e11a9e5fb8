"""The form of a graph that TensorRT runs with the least memory traffic: attention over tokens that lie sequence first.

TensorRT's fused attention takes heads as one axis of one stride. Over [n, tokens, channels] batch and heads are two, so
it copies tokens to [tokens, n, channels] and back, and takes the norm before the copy apart into two kernels with a
float32 tensor between them. Where tokens lie so from the start there is no copy, and each norm is one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

__all__ = ["to_tensorrt_form"]

_ALIKE = {
    *("Add", "Cast", "DequantizeLinear", "Div", "Erf", "Gelu", "Identity", "LayerNormalization", "MatMul", "Mul"),
    *("QuantizeLinear", "Sigmoid", "Slice", "Split", "Sub", "Tanh"),
}
"""Operators that act alike on [n, tokens, channels] and [tokens, n, channels]: element by element or over channels."""

_SWAP = {3: [1, 0, 2], 4: [2, 0, 1, 3]}
"""Where the axes of tokens go, [n, tokens, channels] or [halves, frames, tokens, channels]: n is split in two there."""
_BACK = {3: [1, 0, 2], 4: [1, 2, 0, 3]}


def to_tensorrt_form(model: ir.Model) -> int:
    """Rewrite `model` in place; returns how many attentions there were to rewrite. Its shapes must be known.

    Everything between the layers that make tokens and those that take them apart works on [tokens, n, channels];
    Attention gets heads as an axis of their own. The numbers are the same, element for element.
    """
    _complete_shapes(model)
    attentions = [n for n in model.graph if n.op_type == "Attention" and n.domain == "" and _is_plain(n)]
    region = _Region(model, attentions)
    region.swap()
    for node in attentions:
        region.split_heads(node)
    return len(attentions)


def _complete_shapes(model: ir.Model) -> None:
    """Give the shapes that tracing left out: those between the two halves of a linear layer, and of what it adds."""
    for node in model.graph:
        output = node.outputs[0]
        if output.shape is not None or node.op_type not in _ALIKE or len(node.outputs) > 1:
            continue
        shapes = [value.shape for value in node.inputs if value is not None and value.shape is not None]
        if len(shapes) < len(node.inputs) or not all(shape.is_static() for shape in shapes):
            continue
        lengths = [tuple(int(n) for n in shape.numpy()) for shape in shapes]
        if node.op_type == "MatMul":
            output.shape = ir.Shape([*lengths[0][:-1], lengths[1][-1]]) if len(lengths[1]) == 2 else None
        elif node.op_type in ("Add", "Div", "Mul", "Sub"):
            output.shape = ir.Shape(list(np.broadcast_shapes(*lengths)))
        elif node.op_type != "Slice":
            output.shape = ir.Shape(list(lengths[0]))
        if output.dtype is None and node.op_type not in ("Cast", "DequantizeLinear", "QuantizeLinear"):
            _set_dtype(output, node.inputs[0])


def _is_plain(node: ir.Node) -> bool:
    """Whether it is q, k, v over [n, tokens, channels], without mask or cache."""
    present = [value for value in node.inputs if value is not None]
    return len(present) == 3 and len(node.outputs) == 1 and "q_num_heads" in node.attributes


class _Region:
    """The nodes that are to work on [tokens, n, channels]."""

    def __init__(self, model: ir.Model, attentions: list[ir.Node]) -> None:
        self._graph = model.graph
        self._nodes = dict.fromkeys(attentions)
        self._swapped: dict[ir.Value, ir.Value] = {}
        self._taken = {value.name for node in model.graph for value in node.outputs}
        waiting = list(attentions)
        while waiting:
            for other in _neighbours(waiting.pop()):
                if other not in self._nodes and _acts_alike(other):
                    self._nodes[other] = None
                    waiting.append(other)

    def swap(self) -> None:
        """Let the region take and give tokens sequence first; what comes in and goes out is transposed at its edges."""
        inside = dict.fromkeys(value for node in self._nodes for value in node.outputs)  # in one order, always
        for node in self._nodes:
            for index, value in enumerate(node.inputs):
                if value is None or value in inside:
                    continue
                if value.const_value is not None:
                    node.replace_input_with(index, self._swapped_constant(value))
                elif _is_tokens(value) or (_rank(value) == 4 and _is_split(node.outputs[0])):
                    node.replace_input_with(index, self._swapped_value(value))
            self._move_axis(node)
        for value in inside:
            outside = [(node, index) for node, index in value.uses() if node not in self._nodes]
            value.shape = _swapped_shape(value)
            if outside:
                back = self._transposed(value, _BACK[_rank(value)])
                for node, index in outside:
                    node.replace_input_with(index, back)

    def _move_axis(self, node: ir.Node) -> None:
        """Point what names the first axis to where it goes: the second."""
        output = node.outputs[0]
        if node.op_type == "Reshape" and output.shape is not None:
            lengths = [int(n) for n in output.shape.numpy()]
            target = [0, -1, lengths[1], lengths[3]] if len(lengths) == 4 else [0, -1, lengths[2]]
            node.attributes.pop("allowzero", None)
            node.replace_input_with(1, self._lengths(target))
        elif node.op_type == "Unsqueeze":
            node.replace_input_with(1, self._lengths([1]))
        elif node.op_type == "Slice" and _axes_of(node) == [0]:
            node.replace_input_with(3, self._lengths([1]))

    def _swapped_value(self, value: ir.Value) -> ir.Value:
        """A value from outside, transposed once for all that take it."""
        if value not in self._swapped:
            self._swapped[value] = self._transposed(value, _SWAP[_rank(value)])
        return self._swapped[value]

    def _swapped_constant(self, value: ir.Value) -> ir.Value:
        """A constant that is added to tokens or multiplied with them: frame positions are one a token."""
        if value.shape is None or value.const_value is None:
            return value
        shape = [int(n) for n in value.shape.numpy()]
        if len(shape) != 3 or shape[:2] == [1, 1]:
            return value
        if value not in self._swapped:
            array = np.ascontiguousarray(value.const_value.numpy().transpose(_SWAP[3]))
            self._swapped[value] = self._constant(f"{value.name}_swapped", ir.tensor(array, value.const_value.dtype))
        return self._swapped[value]

    def split_heads(self, node: ir.Node) -> None:
        """Attention of [tokens, n, channels]: heads become an axis, which is a stride and no copy."""
        heads = node.attributes["q_num_heads"].as_int()
        output = node.outputs[0]
        for index, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(index, self._heads_apart(value, heads, node))
        for name in ("q_num_heads", "kv_num_heads"):
            node.attributes.pop(name, None)
        if output.shape is None:
            raise RuntimeError(f"{node.name}: an Attention of unknown shape")
        tokens, count, channels = (int(n) for n in output.shape.numpy())
        users = list(output.uses())
        output.shape = ir.Shape([count, heads, tokens, channels // heads])
        apart = self._transposed(output, [2, 0, 1, 3])
        joined = self._reshaped(apart, [0, 0, channels], [tokens, count, channels])
        for user, index in users:
            user.replace_input_with(index, joined)

    def _heads_apart(self, value: ir.Value, heads: int, node: ir.Node) -> ir.Value:
        """[tokens, n, channels] to [n, heads, tokens, channels of a head]."""
        if value.shape is None:
            raise RuntimeError(f"{node.name}: an Attention of unknown shape")
        tokens, count, channels = (int(n) for n in value.shape.numpy())
        width = channels // heads
        split = self._reshaped(value, [0, 0, heads, width], [tokens, count, heads, width])
        return self._transposed(split, [1, 2, 0, 3])

    def _transposed(self, value: ir.Value, order: list[int]) -> ir.Value:
        node = ir.node("Transpose", [value], attributes={"perm": order})
        shape = None if value.shape is None else [value.shape[axis] for axis in order]
        return self._inserted(node, value, shape)

    def _reshaped(self, value: ir.Value, target: list[int], shape: list[int]) -> ir.Value:
        """target : with 0 for a length that stays, so that none is fixed which is to vary."""
        return self._inserted(ir.node("Reshape", [value, self._lengths(target)]), value, shape)

    def _lengths(self, target: list[int]) -> ir.Value:
        name = f"tensorrt_shape_{'_'.join(str(n) for n in target)}"
        return self._graph.initializers.get(name) or self._constant(name, ir.tensor(np.array(target, np.int64)))

    def _inserted(self, node: ir.Node, source: ir.Value, shape: Sequence[int | ir.SymbolicDim] | None) -> ir.Value:
        """The output of a new node, put where what it takes is there."""
        output = node.outputs[0]
        output.name = f"{source.name}_{node.op_type.lower()}"
        while output.name in self._taken:
            output.name += "_"
        node.name = f"node_{output.name}"
        _set_dtype(output, source)
        output.shape = None if shape is None else ir.Shape(shape)
        self._taken.add(output.name)
        after = source.producer()
        if after is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(after, node)
        return output

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(name=name, const_value=tensor)
        value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.numpy().shape)
        self._graph.register_initializer(value)
        return value


def _set_dtype(value: ir.Value, like: ir.Value | None) -> None:
    if like is not None and like.dtype is not None:
        value.dtype = like.dtype


def _neighbours(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that make what `node` takes, and those that take what it makes, by tokens."""
    for value in node.inputs:
        if value is not None and (_is_tokens(value) or _is_split(value)) and (producer := value.producer()) is not None:
            yield producer
    for value in node.outputs:
        for user, _ in value.uses():
            yield user


def _acts_alike(node: ir.Node) -> bool:
    """Whether a node gives the same numbers with n and tokens swapped: n is the first axis, or the first two."""
    if node.domain != "":
        return False
    joins_halves = _is_split(node.outputs[0]) or (node.op_type == "Reshape" and _is_merge(node))
    return joins_halves or (node.op_type in _ALIKE and _keeps_n(node))


def _keeps_n(node: ir.Node) -> bool:
    """Whether one of the operators that may act alike does, on [n, tokens, channels]."""
    if not all(_is_tokens(value) for value in node.outputs):
        return False
    if node.op_type == "MatMul":  # by a matrix of weights
        return _input_rank(node, 1) == 2
    if node.op_type in ("LayerNormalization", "Split"):
        axis = node.attributes.get("axis")
        return axis is not None and axis.as_int() in (-1, 2)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _input_rank(node, 1) == 0
    return node.op_type != "Slice" or _axes_of(node) in ([-1], [0], [2])


def _input_rank(node: ir.Node, index: int) -> int | None:
    value = node.inputs[index]
    return None if value is None or value.shape is None else len(value.shape)


def _axes_of(node: ir.Node) -> list[int] | None:
    """The axes that a Slice cuts, where they are constant."""
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    return None if axes is None or axes.const_value is None else list(axes.const_value.numpy().tolist())


def _rank(value: ir.Value) -> int:
    return 0 if value.shape is None else len(value.shape)


def _is_tokens(value: ir.Value) -> bool:
    return value.const_value is None and _rank(value) == 3


def _is_split(value: ir.Value) -> bool:
    """Whether it is tokens whose n is split in halves of guidance and frames: [halves, frames, tokens, channels].

    So they are made, by a Reshape or an Unsqueeze, where halves are joined by a sum, see `SpatialBlock`.
    """
    node = value.producer()
    if node is None or _rank(value) != 4:
        return False
    if node.op_type in ("Add", "Where"):
        return any(_is_split(v) for v in node.inputs if v is not None)
    source = node.inputs[0]
    if node.op_type not in ("Reshape", "Unsqueeze") or source is None or not _is_tokens(source):
        return False
    same = source.shape is not None and value.shape is not None and list(source.shape)[1:] == list(value.shape)[2:]
    return same and all(user.op_type in ("Add", "Where") for user, _ in value.uses())


def _is_merge(node: ir.Node) -> bool:
    """Whether a Reshape makes [n, tokens, channels] of split tokens."""
    source, output = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or output.shape is None or not _is_split(source):
        return False
    return list(source.shape)[2:] == list(output.shape)[1:]


def _swapped_shape(value: ir.Value) -> ir.Shape | None:
    if value.shape is None:
        return None
    lengths = list(value.shape)
    return ir.Shape([lengths[axis] for axis in _SWAP[len(lengths)]])
