"""Linear layers and convolutions in INT8 or FP8: explicit Q/DQ in ONNX, the same arithmetic simulated in PyTorch.

TensorRT's rules: symmetric, zero point 0; both inputs of a layer are quantized and its output is not; activations one
scale a tensor, weights one a channel of the output; scales in the data's dtype. A layer's Q stands right before it, so
after its SiLU or norm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from lsx.core.tensors import LowPrecision

__all__ = ["LARGEST", "QuantizedConv2d", "QuantizedLayer", "QuantizedLinear", "fake_quantize", "quantized_layer"]

LARGEST: dict[LowPrecision, float] = {"int8": 127.0, "fp8": 448.0}
"""Highest code of a symmetric range; FP8 is E4M3."""

_CODES: dict[LowPrecision, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_SMALLEST_SCALE = 2.0**-20  # in float16 a scale has still 5 bits there


def _as_scale(largest: Tensor, precision: LowPrecision) -> Tensor:
    """The scale of a range -largest..largest: float32 numbers that float16 holds exactly."""
    scale = (largest / LARGEST[precision]).clamp(min=_SMALLEST_SCALE)
    return scale.to(torch.float16).float()


def _encode(x: Tensor, scale: Tensor, precision: LowPrecision, lowest: float) -> Tensor:
    top = LARGEST[precision]
    scaled = x / scale
    if precision == "int8":
        return scaled.round_().clamp_(lowest, top).to(torch.int8)
    return scaled.clamp_(-top, top).to(torch.float8_e4m3fn)


def fake_quantize(x: Tensor, scale: Tensor, precision: LowPrecision) -> Tensor:
    """`x` rounded to the codes of `scale` and back, in its own dtype."""
    return (_encode(x, scale, precision, -128.0).to(torch.float32) * scale).to(x.dtype)


class QuantizedLayer(nn.Module):
    """What the two have in common: codes, scales, and the Q/DQ pair of the input.

    Codes keep their dtype when the module is cast; scales follow it, which loses nothing: float16 holds them.
    """

    def __init__(self, codes: Tensor, weight_scale: Tensor, bias: Tensor | None, input_amax: float, axis: int) -> None:
        """axis : of the output channels in `codes`."""
        super().__init__()
        self.precision: LowPrecision = "int8" if codes.dtype == torch.int8 else "fp8"
        self.axis = axis
        self.codes: Tensor
        self.weight_scale: Tensor
        self.input_scale: Tensor
        self.zero: Tensor
        self.register_buffer("codes", codes)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("input_scale", _as_scale(torch.tensor(input_amax), self.precision))
        self.register_buffer("zero", torch.zeros((), dtype=codes.dtype))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        codes, zero = self.codes, self.zero
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own has no types
        self.codes, self.zero = (t.to(self.input_scale.device) for t in (codes, zero))
        return module

    def quantized_input(self, x: Tensor) -> Tensor:
        """`x` through Q and DQ."""
        if not torch.compiler.is_exporting():
            return fake_quantize(x, self.input_scale.float(), self.precision)
        codes = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            (x, self.input_scale, self.zero),
            attrs={"saturate": 1} if self.precision == "fp8" else {},
            dtype=_CODES[self.precision],
            shape=x.shape,
            version=23,
        )
        return _dequantize(codes, self.input_scale, {})

    def weight(self) -> Tensor:
        """The codes through DQ."""
        if torch.compiler.is_exporting():
            return _dequantize(self.codes, self.weight_scale, {"axis": self.axis})
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return (self.codes.to(torch.float32) * self.weight_scale.float().view(shape)).to(self.weight_scale.dtype)


def _dequantize(codes: Tensor, scale: Tensor, attributes: dict[str, Any]) -> Tensor:
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (codes, scale), attrs=attributes, dtype=scale.dtype, shape=codes.shape, version=23
    )


class QuantizedLinear(QuantizedLayer):
    """A linear layer. Its codes are [inputs, outputs]: the right operand of a MatMul, without a transpose between."""

    def __init__(self, layer: nn.Linear, input_amax: float, precision: LowPrecision) -> None:
        weight = layer.weight.detach().float()
        scale = _as_scale(weight.abs().amax(dim=1), precision)
        codes = _encode(weight, scale[:, None], precision, -127.0).t().contiguous()
        super().__init__(codes, scale, layer.bias, input_amax, axis=1)
        self.out_features = layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        out = torch.matmul(self.quantized_input(x), self.weight())
        return out if self.bias is None else out + self.bias


class QuantizedConv2d(QuantizedLayer):
    """A convolution; codes [outputs, inputs, height, width]."""

    def __init__(self, layer: nn.Conv2d, input_amax: float, precision: LowPrecision) -> None:
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError("only plain convolutions are quantized")
        weight = layer.weight.detach().float()
        scale = _as_scale(weight.abs().amax(dim=(1, 2, 3)), precision)
        codes = _encode(weight, scale[:, None, None, None], precision, -127.0)
        super().__init__(codes, scale, layer.bias, input_amax, axis=0)
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.conv2d(
            self.quantized_input(x), self.weight(), self.bias, self.stride, self.padding, self.dilation
        )
        return out


def quantized_layer(layer: nn.Module, input_amax: float, precision: LowPrecision) -> QuantizedLayer:
    """`layer`, an nn.Linear or nn.Conv2d, in `precision`; its input's range is -input_amax..input_amax."""
    if isinstance(layer, nn.Linear):
        return QuantizedLinear(layer, input_amax, precision)
    if isinstance(layer, nn.Conv2d):
        return QuantizedConv2d(layer, input_amax, precision)
    raise TypeError(f"{type(layer).__name__} is not quantized")
