"""A program: buffers and operations as plain data, built once (`chunk_program.py`), run by an executor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Dtype, TensorSpec

__all__ = ["Buffer", "BufferRole", "Copy", "GraphIO", "Operation", "Program", "RunGraph", "View", "reads_and_writes"]


_SIZES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "int64": 8}

BufferRole = Literal["input", "output", "constant", "scratch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A tensor in memory, C-contiguous."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    owner: BufferRole
    """The one who fills it, and its life: `input` by the caller before a run, `output` read by the caller after it,
    `constant` filled once for all runs; `scratch` lives from its first operation to its last."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * _SIZES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A buffer, or start..stop of one of its axes. Contiguous where that axis is the first."""

    buffer: str
    axis: int = 0
    start: int = 0
    stop: int | None = None

    def shape_in(self, buffer: Buffer) -> tuple[int, ...]:
        """The view's shape."""
        shape = list(buffer.shape)
        shape[self.axis] = (shape[self.axis] if self.stop is None else self.stop) - self.start
        return tuple(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGraph:
    """Run a graph on these tensors."""

    graph: str
    feed: Mapping[str, View]
    results: Mapping[str, View]
    phase: str
    """What the time is booked under: VAE encode, denoise or VAE decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Copy one view to another of the same shape and dtype, on the device."""

    source: View
    target: View
    phase: str


Operation = RunGraph | Copy


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphIO:
    """Inputs and outputs of a graph, as its engine takes them."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Buffers by name, operations in order, and the contents of the constants."""

    buffers: Mapping[str, Buffer]
    operations: tuple[Operation, ...]
    constants: Mapping[str, NDArray[np.float32]]

    def owned(self, owner: BufferRole) -> Iterator[Buffer]:
        """The buffers of one owner."""
        return (buffer for buffer in self.buffers.values() if buffer.owner == owner)

    def graphs(self) -> tuple[str, ...]:
        """The graphs that it runs, each once, in the order of their first use."""
        return tuple(dict.fromkeys(o.graph for o in self.operations if isinstance(o, RunGraph)))


def reads_and_writes(operation: Operation) -> tuple[list[View], list[View]]:
    """The views that an operation reads, and those that it writes."""
    if isinstance(operation, Copy):
        return [operation.source], [operation.target]
    return list(operation.feed.values()), list(operation.results.values())
