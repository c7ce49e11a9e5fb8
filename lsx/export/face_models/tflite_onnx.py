"""TFLite to ONNX for the operators of MediaPipe's face models. float32, NCHW inside, weights dequantized.

Only what these models use is converted; any other operator is an ExportError that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lsx.errors import ExportError

__all__ = ["NetworkParts", "network_from_tflite"]

_OPERATORS = {code: name for name, code in vars(tflite.BuiltinOperator).items() if not name.startswith("_")}
_DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.UINT8: np.uint8,
}
_NCHW = [0, 3, 1, 2]
_NHWC = [0, 2, 3, 1]


class NetworkParts:
    """The converted network: nodes and initializers for a larger graph, and the names of its I/O."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.input = ""
        """float32 [1, 3, height, width]."""
        self.outputs: list[str] = []
        """Outputs in the model's order: float32, in the shapes that TFLite gives them (NHWC where four-dimensional)."""

    def constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output


class _Converter:
    def __init__(self, content: bytes, prefix: str) -> None:
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.graph: Any = self.model.Subgraphs(0)
        self.prefix = prefix
        self.parts = NetworkParts()
        self.values: dict[int, NDArray[Any]] = {}
        """Tensors known now: buffers, and what DENSIFY and DEQUANTIZE make of them."""
        self.names: dict[int, str] = {}

    def run(self) -> NetworkParts:
        (entry,) = self.graph.InputsAsNumpy()
        self.parts.input = self.names[entry] = f"{self.prefix}input"
        for index in range(self.graph.OperatorsLength()):
            operator: Any = self.graph.Operators(index)
            code: Any = self.model.OperatorCodes(operator.OpcodeIndex())
            name = _OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            convert: Callable[..., None] | None = getattr(self, f"_{name.lower()}", None)
            if convert is None:
                raise ExportError(f"the face model uses TFLite's {name}, which lsx does not convert")
            inputs, outputs = operator.InputsAsNumpy().tolist(), operator.OutputsAsNumpy().tolist()
            convert(operator, inputs, outputs[0])
        for tensor in self.graph.OutputsAsNumpy().tolist():
            self.parts.outputs.append(self._as_nhwc(tensor))
        return self.parts

    def _shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self.graph.Tensors(tensor).ShapeAsNumpy()]

    def _options(self, operator: Any, kind: Any) -> Any:
        options = kind()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    def _value(self, tensor: int) -> NDArray[Any] | None:
        """The constant that `tensor` is, or None."""
        if tensor not in self.values:
            description: Any = self.graph.Tensors(tensor)
            content: Any = self.model.Buffers(description.Buffer())
            if content.DataLength() == 0 or description.Sparsity() is not None:
                return None
            flat = np.frombuffer(content.DataAsNumpy().tobytes(), _DTYPES[description.Type()])
            self.values[tensor] = flat.reshape(self._shape(tensor))
        return self.values[tensor]

    def _require(self, tensor: int) -> NDArray[Any]:
        value = self._value(tensor)
        if value is None:
            raise ExportError("the face model computes a weight at run time, which lsx does not convert")
        return value

    def _out(self, tensor: int) -> str:
        self.names[tensor] = f"{self.prefix}t{tensor}"
        return self.names[tensor]

    def _as_nhwc(self, tensor: int) -> str:
        name = self.names[tensor]
        if len(self._shape(tensor)) != 4:
            return name
        return self.parts.node("Transpose", [name], f"{name}_nhwc", perm=_NHWC)

    def _densify(self, _: Any, inputs: list[int], output: int) -> None:
        description: Any = self.graph.Tensors(inputs[0])
        content: Any = self.model.Buffers(description.Buffer())
        values = np.frombuffer(content.DataAsNumpy().tobytes(), _DTYPES[description.Type()])
        self.values[output] = _dense(description.Sparsity(), values, self._shape(inputs[0]))

    def _dequantize(self, _: Any, inputs: list[int], output: int) -> None:
        self.values[output] = self._require(inputs[0]).astype(np.float32)

    def _convolution(self, inputs: list[int], output: int, options: Any, *, depthwise: bool) -> None:
        weight, bias = self._require(inputs[1]), self._require(inputs[2])
        # Convolution: [out, kh, kw, in]; depthwise: [1, kh, kw, out].
        kernel = weight.transpose(3, 0, 1, 2) if depthwise else weight.transpose(0, 3, 1, 2)
        name = self._out(output)
        strides = [options.StrideH(), options.StrideW()]
        pads = self._pads(options.Padding(), self._shape(inputs[0])[1:3], list(kernel.shape[2:]), strides)
        result = self.parts.node(
            "Conv",
            [
                self.names[inputs[0]],
                self.parts.constant(f"{name}_w", kernel),
                self.parts.constant(f"{name}_b", bias),
            ],
            f"{name}_conv",
            strides=strides,
            pads=pads,
            group=kernel.shape[0] if depthwise else 1,
        )
        self._activate(options.FusedActivationFunction(), result, name)

    def _conv_2d(self, operator: Any, inputs: list[int], output: int) -> None:
        self._convolution(inputs, output, self._options(operator, tflite.Conv2DOptions), depthwise=False)

    def _depthwise_conv_2d(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.DepthwiseConv2DOptions)
        self._convolution(inputs, output, options, depthwise=True)

    def _pads(self, padding: int, size: list[int], kernel: list[int], strides: list[int]) -> list[int]:
        if padding == tflite.Padding.VALID:
            return [0, 0, 0, 0]
        totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, strides, strict=True)]
        before = [t // 2 for t in totals]
        return before + [t - b for t, b in zip(totals, before, strict=True)]

    def _activate(self, function: int, result: str, output: str) -> None:
        kind = tflite.ActivationFunctionType
        if function == kind.NONE:
            self.parts.node("Identity", [result], output)
        elif function == kind.RELU:
            self.parts.node("Relu", [result], output)
        elif function == kind.RELU6:
            low = self.parts.constant(f"{output}_0", np.float32(0))
            high = self.parts.constant(f"{output}_6", np.float32(6))
            self.parts.node("Clip", [result, low, high], output)
        else:
            raise ExportError(f"the face model fuses activation {function}, which lsx does not convert")

    def _add(self, operator: Any, inputs: list[int], output: int) -> None:
        name = self._out(output)
        summed = self.parts.node("Add", [self.names[i] for i in inputs], f"{name}_sum")
        function = self._options(operator, tflite.AddOptions).FusedActivationFunction()
        self._activate(function, summed, name)

    def _prelu(self, _: Any, inputs: list[int], output: int) -> None:
        """Write PRelu as products and maxima: ONNX Runtime's PRelu takes twice the time of all the convolutions."""
        slope = self._require(inputs[1]).reshape(-1, 1, 1)
        source, name = self.names[inputs[0]], self._out(output)
        slopes = self.parts.constant(f"{name}_slope", slope)
        if slope.max() <= 1:
            scaled = self.parts.node("Mul", [source, slopes], f"{name}_scaled")
            self.parts.node("Max", [source, scaled], name)
            return
        zero = self.parts.constant(f"{name}_zero", np.zeros((), slope.dtype))
        negative = self.parts.node("Min", [source, zero], f"{name}_negative")
        scaled = self.parts.node("Mul", [negative, slopes], f"{name}_scaled")
        self.parts.node("Add", [self.parts.node("Relu", [source], f"{name}_positive"), scaled], name)

    def _max_pool_2d(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.Pool2DOptions)
        kernel = [options.FilterHeight(), options.FilterWidth()]
        strides = [options.StrideH(), options.StrideW()]
        pads = self._pads(options.Padding(), self._shape(inputs[0])[1:3], kernel, strides)
        name = self._out(output)
        pooled = self.parts.node(
            "MaxPool",
            [self.names[inputs[0]]],
            f"{name}_pool",
            kernel_shape=kernel,
            strides=strides,
            pads=pads,
        )
        self._activate(options.FusedActivationFunction(), pooled, name)

    def _pad(self, _: Any, inputs: list[int], output: int) -> None:
        amounts = self._require(inputs[1])[_NCHW]
        name = self._out(output)
        pads = self.parts.constant(f"{name}_pads", amounts.T.reshape(-1).astype(np.int64))
        self.parts.node("Pad", [self.names[inputs[0]], pads], name)

    def _resize_bilinear(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, tflite.ResizeBilinearOptions)
        height, width = self._require(inputs[1]).tolist()
        mode = "asymmetric"
        if options.AlignCorners():
            mode = "align_corners"
        elif options.HalfPixelCenters():
            mode = "half_pixel"
        name = self._out(output)
        channels = self._shape(inputs[0])[3]
        sizes = self.parts.constant(f"{name}_size", np.array([1, channels, height, width], np.int64))
        self.parts.node(
            "Resize",
            [self.names[inputs[0]], "", "", sizes],
            name,
            mode="linear",
            coordinate_transformation_mode=mode,
        )

    def _depth_to_space(self, operator: Any, inputs: list[int], output: int) -> None:
        block = self._options(operator, tflite.DepthToSpaceOptions).BlockSize()
        self.parts.node("DepthToSpace", [self.names[inputs[0]]], self._out(output), blocksize=block, mode="DCR")

    def _reshape(self, _: Any, inputs: list[int], output: int) -> None:
        source = self._as_nhwc(inputs[0])
        name = self._out(output)
        shape = self._shape(output)
        if len(shape) == 4:
            raise ExportError("the face model reshapes to an image, which lsx does not convert")
        self.parts.node("Reshape", [source, self.parts.constant(f"{name}_shape", np.array(shape, np.int64))], name)


def _dense(sparsity: Any, values: NDArray[Any], shape: list[int]) -> NDArray[Any]:
    """Expand TFLite's sparse format: levels of dense or CSR dimensions, in traversal order, blocks last."""
    order = sparsity.TraversalOrderAsNumpy().tolist()
    blocks = [] if sparsity.BlockMapLength() == 0 else sparsity.BlockMapAsNumpy().tolist()
    levels = [sparsity.DimMetadata(i) for i in range(sparsity.DimMetadataLength())]
    block_sizes = {dim: levels[len(shape) + i].DenseSize() for i, dim in enumerate(blocks)}
    positions = np.zeros((1, len(order)), dtype=np.int64)  # one row a stored prefix, one column a level
    prefixes = np.zeros(1, dtype=np.int64)
    for depth, level in enumerate(levels):
        if level.Format() == tflite.DimensionType.DENSE:
            size = level.DenseSize()
            positions = positions.repeat(size, axis=0)
            positions[:, depth] = np.tile(np.arange(size), len(prefixes))
            prefixes = (prefixes[:, None] * size + np.arange(size)).ravel()
        else:
            segments, indices = _vector(level, "Segments"), _vector(level, "Indices")
            counts = segments[prefixes + 1] - segments[prefixes]
            positions = positions.repeat(counts, axis=0)
            prefixes = np.concatenate([np.arange(segments[p], segments[p + 1]) for p in prefixes])
            positions[:, depth] = indices[prefixes]
    coordinates = np.zeros((len(positions), len(shape)), dtype=np.int64)
    for depth, dim in enumerate(order):
        if dim < len(shape):
            coordinates[:, dim] += positions[:, depth] * block_sizes.get(dim, 1)
        else:
            coordinates[:, blocks[dim - len(shape)]] += positions[:, depth]
    dense = np.zeros(shape, dtype=values.dtype)
    dense[tuple(coordinates.T)] = values[: len(coordinates)]
    return dense


def _vector(level: Any, part: str) -> NDArray[np.int64]:
    """An index vector of a sparse level, stored as int32, uint16 or uint8."""
    kinds = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }
    vector: Any = kinds[getattr(level, f"Array{part}Type")()]()
    table = getattr(level, f"Array{part}")()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy(), dtype=np.int64)


def network_from_tflite(content: bytes, prefix: str) -> NetworkParts:
    """Convert a TFLite model with one image input. `prefix` starts every name.

    Raises ExportError for an operator that MediaPipe's face models do not have.
    """
    return _Converter(content, prefix).run()
