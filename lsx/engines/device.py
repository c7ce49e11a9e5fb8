"""A GPU as executors and engines see it: memory, streams, events, copies, captured graphs.

One implementation is CUDA (`cuda_device.py`). The tests have another, which runs each stream's work as late and in as
odd an order as the events allow, so that a missing wait shows as a wrong number on any machine.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NewType

import numpy as np
from numpy.typing import NDArray

from lsx.engines.engine import Array, Engine, FeedDict
from lsx.errors import EngineError
from lsx.specs import TensorSpec

__all__ = ["ALIGNMENT", "Device", "DeviceEngine", "Event", "Graph", "Memory", "Stream", "aligned", "bfloat16_dtype"]

ALIGNMENT = 256
"""Bytes. TensorRT wants every I/O tensor at a multiple of it."""


def aligned(size: int) -> int:
    """`size` rounded up to the next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def bfloat16_dtype() -> Any:
    """NumPy's dtype for bfloat16, of ml_dtypes. Raises EngineError where that is not installed."""
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise EngineError("a bf16 bundle needs ml_dtypes on the host. Install it: pip install ml_dtypes") from error
    return bfloat16


Stream = NewType("Stream", int)
"""A stream's handle, as the driver and TensorRT take it."""

Event = NewType("Event", int)
"""An event's handle."""


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """A block of memory. `host` is its contents where the CPU can read them: pinned memory."""

    address: int
    size: int
    host: NDArray[np.uint8] | None
    owner: Any
    """Keeps pinned memory alive; None for device memory."""


class Graph(ABC):
    """Captured work. It refers to the addresses that it was captured with: keep their memory as long."""

    @abstractmethod
    def launch(self, stream: Stream) -> None:
        """Enqueue all of it."""

    @abstractmethod
    def close(self) -> None:
        """Free it. No launch of it may be pending."""


class Device(ABC):
    """One GPU. Handles may be used from any thread that has called `enter`."""

    lock: ClassVar = threading.RLock()
    """Held while work is captured, and while memory is taken or given back and engines come or go: CUDA forbids to wait
    for a whole device, which these may do, while any thread captures on it."""

    @abstractmethod
    def enter(self) -> None:
        """Make this the calling thread's device."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Free memory."""

    @abstractmethod
    def allocate(self, size: int) -> Memory:
        """Device memory at a multiple of 256 bytes. Raises OutOfDeviceMemory."""

    @abstractmethod
    def allocate_pinned(self, size: int) -> Memory:
        """Page-locked host memory. Raises OutOfDeviceMemory."""

    @abstractmethod
    def free(self, memory: Memory) -> None:
        """Give a block back. No work on it may be pending."""

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    @abstractmethod
    def event(self, *, timed: bool = False) -> Event:
        """A new event; `timed` for `elapsed`, which costs a little."""

    @abstractmethod
    def discard(self, *handles: Stream | Event) -> None:
        """Give streams and events back. No work on them may be pending."""

    @abstractmethod
    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Enqueue a copy of `size` bytes between any two addresses."""

    @abstractmethod
    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: Stream
    ) -> None:
        """Enqueue a copy of `rows` runs of `width` bytes, each a pitch after the last."""

    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None:
        """Mark the work enqueued so far."""

    @abstractmethod
    def wait(self, event: Event, stream: Stream) -> None:
        """Let what is enqueued next wait for what was marked."""

    @abstractmethod
    def synchronise(self, event: Event) -> None:
        """Block until what was marked is done. Raises EngineError when the device failed."""

    @abstractmethod
    def elapsed(self, start: Event, end: Event) -> float:
        """Seconds on the device between two timed events, both of which were waited for."""

    @abstractmethod
    def capture(self, stream: Stream, body: Callable[[Stream], None]) -> Graph:
        """What `body` enqueues on the stream it is given, as a graph, not run. Raises EngineError; nothing is kept."""

    @abstractmethod
    def close(self) -> None:
        """Give back streams, events and memory."""


class DeviceEngine(Engine):
    """An engine on a GPU: besides `infer`, it enqueues on a stream, over addresses that the caller owns."""

    def __init__(self, graph: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], device: Device) -> None:
        super().__init__(graph, inputs, outputs)
        self.device = device
        self._own: _OwnBuffers | None = None
        self._running = threading.Lock()  # its own buffers, and its context, are one caller's at a time

    @abstractmethod
    def prepare(self, axes: Mapping[str, int]) -> int:
        """Fix the lengths of the axes that vary; returns the bytes of activation memory that they need.

        Raises StaleEngine when the plan was not built for them.
        """

    def warmed_up(self) -> None:  # most engines keep nothing
        """Called when a first call has run: what was compiled for it may be kept for the next process."""

    @abstractmethod
    def use_activation(self, memory: Memory | None) -> None:
        """Work in `memory` from now on; engines that never run at once may share it."""

    @abstractmethod
    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        """Enqueue one run over the I/O tensors at `addresses`, multiples of 256. Raises EngineError."""

    @abstractmethod
    def capturable(self, stream: Stream) -> bool:
        """Whether `enqueue` may be captured into a graph."""

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
        """Over buffers of its own, kept for the next run of the same shapes. Not for the loop: it copies and waits."""
        with self._running:
            return self._buffers(feed_dict).run(feed_dict)

    def device_seconds(self, feed_dict: FeedDict) -> float:
        """Seconds of one run on the device, by events round it; the inputs are uploaded before.

        From the second run of the same shapes on it is a launch of a captured graph, where the engine can be captured,
        as in the loop: enqueued one by one, short kernels would wait for the CPU.
        """
        with self._running:
            return self._buffers(feed_dict).device_seconds(feed_dict)

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
    """Device and pinned memory of one engine's I/O at one set of lengths."""

    def __init__(self, engine: DeviceEngine, axes: Mapping[str, int]) -> None:
        self.axes = dict(axes)
        self._engine, self._device = engine, engine.device
        self._device.enter()
        self._graph: Graph | None = None
        self._timed = 0
        activation = engine.prepare(axes)
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
            if activation:
                self._memory.append(self._device.allocate(activation))
                engine.use_activation(self._memory[-1])
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

    def device_seconds(self, feed_dict: FeedDict) -> float:
        self._upload(feed_dict)
        if self._timed == 1:
            self._capture()
        self._timed += 1
        self._device.record(self._start, self._stream)
        if self._graph is None:
            self._engine.enqueue(self._addresses, self._stream)
        else:
            self._graph.launch(self._stream)
        self._device.record(self._done, self._stream)
        self._device.synchronise(self._done)
        return self._device.elapsed(self._start, self._done)

    def _capture(self) -> None:
        if self._engine.capturable(self._stream):
            with suppress(EngineError):  # then it is timed as it is enqueued
                self._graph = self._device.capture(
                    self._stream, lambda stream: self._engine.enqueue(self._addresses, stream)
                )

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        pinned = self._memory[1]
        self._upload(feed_dict)
        self._engine.enqueue(self._addresses, self._stream)
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
        self._engine.use_activation(None)
        for memory in self._memory:
            self._device.free(memory)
        self._device.discard(self._stream, self._start, self._done)
