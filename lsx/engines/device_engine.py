"""Engines on a GPU: weights that are shared, and contexts that run them at fixed lengths in memory of the caller's."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from lsx.core.tensors import TensorSpec
from lsx.engines.device import CapturedGraph, Device, Memory, Stream, aligned
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.errors import EngineError

__all__ = ["Context", "DeviceEngine", "bfloat16_dtype"]


def bfloat16_dtype() -> Any:
    """NumPy's dtype for bfloat16, of ml_dtypes. Raises EngineError where that is not installed."""
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise EngineError("a bf16 bundle needs ml_dtypes on the host. Install it: pip install ml_dtypes") from error
    return bfloat16


class Context(ABC):
    """An engine at fixed lengths of the axes that vary. It enqueues on a stream, over addresses that the caller owns.

    Lengths and activation memory are settled before the first run and never change: what was captured of a context
    stays right as long as the context and its memory are there, whatever other contexts of the engine do.
    """

    @property
    @abstractmethod
    def activation_bytes(self) -> int:
        """Bytes of activation memory that these lengths need; 0 where the library has its own."""

    def use_activation(self, memory: Memory) -> None:  # noqa: B027  (nothing to do where the library has its own)
        """Work in `memory`, of at least `activation_bytes`. Contexts that never run at once may share it."""

    @abstractmethod
    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        """Enqueue one run over the I/O tensors at `addresses`, multiples of 256. Raises EngineError, DeviceLost."""

    @abstractmethod
    def capturable(self, stream: Stream) -> bool:
        """Whether `enqueue` may be captured into a graph."""

    def warmed_up(self) -> None:  # noqa: B027  (most keep nothing)
        """Called when a first run is done: what was compiled for it may be kept for the next process."""

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Free what it holds; its engine stays open. No run of it may be pending."""


class DeviceEngine(Engine):
    """An engine on a GPU. Its weights are there once; `context` gives what runs them."""

    on_device = True

    def __init__(self, graph: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], device: Device) -> None:
        super().__init__(graph, inputs, outputs)
        self.device = device
        self._own: _OwnBuffers | None = None
        self._running = threading.Lock()  # its own buffers are one caller's at a time

    @property
    def activation_bytes(self) -> int:
        """Bytes of activation memory that do for a context of any lengths; 0 where the library has its own."""
        return 0

    @abstractmethod
    def context(self, axes: Mapping[str, int]) -> Context:
        """A new context at these lengths of the axes that vary; others may be named. The caller closes it.

        Raises StaleEngine where the plan was not built for them, EngineError, OutOfDeviceMemory.
        """

    def own_axes(self, axes: Mapping[str, int]) -> dict[str, int]:
        """The axes, of `axes`, that vary in this engine's tensors."""
        varying = {n for spec in (*self.inputs.values(), *self.outputs.values()) for n in spec.shape}
        return {axis: length for axis, length in axes.items() if axis in varying}

    def numpy_dtype(self, spec: TensorSpec) -> Any:
        return bfloat16_dtype() if spec.dtype == "bfloat16" else super().numpy_dtype(spec)

    def axes_of(self, feed_dict: FeedDict) -> dict[str, int]:
        """Lengths of the axes that vary, in these inputs."""
        return {
            axis: feed_dict[name].shape[position]
            for name, spec in self.inputs.items()
            for position, axis in enumerate(spec.shape)
            if isinstance(axis, str)
        }

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        """Run over buffers of its own, kept for the next of the same shapes. Not for the loop: it copies and waits."""
        with self._running:
            return self._buffers(feed_dict).run(feed_dict)

    def device_seconds(self, feed_dict: FeedDict, *, captured: bool = True) -> float:
        """Seconds of one run on the device, by events round it; the inputs are uploaded before.

        captured : from the second run of the same shapes on, launch a captured graph, where it can be captured, as the
        loop does; else enqueue every kernel by itself, as a library alone does.
        """
        with self._running:
            return self._buffers(feed_dict).device_seconds(feed_dict, captured=captured)

    def _buffers(self, feed_dict: FeedDict) -> _OwnBuffers:
        axes = self.axes_of(feed_dict)
        if self._own is None or self._own.axes != axes:
            self.release_buffers()
            self._own = _OwnBuffers(self, axes)
        return self._own

    def release_buffers(self) -> None:
        """Give back what `run` allocated."""
        if self._own is not None:
            self._own.close()
            self._own = None


class _OwnBuffers:
    """A context of one engine, with device and pinned memory for its I/O."""

    def __init__(self, engine: DeviceEngine, axes: Mapping[str, int]) -> None:
        self.axes = dict(axes)
        self._engine, self._device = engine, engine.device
        self._device.enter()
        self._graph: CapturedGraph | None = None
        self._timed = 0
        self._context = engine.context(axes)
        self._spans: dict[str, tuple[int, int, Any, tuple[int, ...]]] = {}
        offset = 0
        for spec in (*engine.inputs.values(), *engine.outputs.values()):
            shape = spec.shape_at(axes)
            dtype = np.dtype(engine.numpy_dtype(spec))
            size = int(np.prod(shape)) * dtype.itemsize
            self._spans[spec.name] = (offset, size, dtype, shape)
            offset += aligned(size)
        self._stream = self._device.stream()
        self._start, self._done = self._device.event(timed=True), self._device.event(timed=True)
        self._memory: list[Memory] = []
        try:
            self._memory.append(self._device.allocate(offset))
            self._memory.append(self._device.allocate_pinned(offset))
            activation = self._context.activation_bytes
            if activation:
                self._memory.append(self._device.allocate(activation))
                self._context.use_activation(self._memory[-1])
        except BaseException:
            self.close()
            raise
        self._addresses = {name: self._memory[0].address + span[0] for name, span in self._spans.items()}

    def _upload(self, feed_dict: FeedDict) -> None:
        pinned = self._memory[1]
        self._device.enter()
        for name in self._engine.inputs:
            offset, size, _, _ = self._spans[name]
            self._host(name)[...] = feed_dict[name]
            self._device.copy(self._addresses[name], pinned.address + offset, size, self._stream)

    def device_seconds(self, feed_dict: FeedDict, *, captured: bool) -> float:
        self._upload(feed_dict)
        if captured and self._timed == 1:
            self._capture()
        self._timed += captured
        self._device.record(self._start, self._stream)
        if self._graph is None or not captured:
            self._context.enqueue(self._addresses, self._stream)
        else:
            self._graph.launch(self._stream)
        self._device.record(self._done, self._stream)
        self._device.synchronise(self._done)
        return self._device.elapsed(self._start, self._done)

    def _capture(self) -> None:
        if self._context.capturable(self._stream):
            with suppress(EngineError):  # then it is timed as it is enqueued
                self._graph = self._device.capture(
                    self._stream, lambda stream: self._context.enqueue(self._addresses, stream)
                )

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        pinned = self._memory[1]
        self._upload(feed_dict)
        self._context.enqueue(self._addresses, self._stream)
        for name in self._engine.outputs:
            offset, size, _, _ = self._spans[name]
            self._device.copy(pinned.address + offset, self._addresses[name], size, self._stream)
        self._device.record(self._done, self._stream)
        self._device.synchronise(self._done)
        return {name: self._host(name).copy() for name in self._engine.outputs}

    def _host(self, name: str) -> Array:
        offset, size, dtype, shape = self._spans[name]
        host = self._memory[1].host
        if host is None:
            raise EngineError("the device gave pinned memory that the CPU cannot read")
        return np.asarray(host[offset : offset + size].view(dtype).reshape(shape))

    def close(self) -> None:
        self._device.enter()
        if self._graph is not None:
            self._graph.close()
        with suppress(EngineError):  # what a failed run has left
            self._device.record(self._done, self._stream)
            self._device.synchronise(self._done)
        self._context.close()
        for memory in self._memory:
            self._device.free(memory)
        self._device.discard(self._stream, self._start, self._done)
