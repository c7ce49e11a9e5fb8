"""Tensors by name, dtype and shape; precisions; a video frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LOW_PRECISIONS",
    "PRECISIONS",
    "Dtype",
    "FloatPrecision",
    "Frame",
    "LowPrecision",
    "Precision",
    "TensorSpec",
    "base_precision",
    "described",
]

Frame = NDArray[np.uint8]


Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]


PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")


LowPrecision = Literal["int8", "fp8"]
"""Precisions of single layers, by Q/DQ, in a graph that is fp16 otherwise."""


LOW_PRECISIONS: tuple[LowPrecision, ...] = ("int8", "fp8")


FloatPrecision = Literal["fp32", "fp16", "bf16"]


Dtype = Literal["float32", "float16", "bfloat16", "uint8", "int64"]


def described(value: object) -> str:
    """Dtype and shape of an array, or the type of what is none, for messages."""
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"


def base_precision(precision: Precision) -> FloatPrecision:
    """The precision of what is not quantized: fp16 round int8 and fp8 layers."""
    return _BASE[precision]


_BASE: dict[Precision, FloatPrecision] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "fp16", "fp8": "fp16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, dtype and shape of one I/O tensor. A string in the shape names an axis that varies."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]

    def shape_at(self, axes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape where the axes that vary have these lengths."""
        return tuple(axes[n] if isinstance(n, str) else n for n in self.shape)

    def as_float32(self) -> TensorSpec:
        """The same in float32; uint8 stays."""
        return self if self.dtype == "uint8" else replace(self, dtype="float32")

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(str(n) for n in self.shape)}]"
