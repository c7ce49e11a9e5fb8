"""A GPU as executors and engines see it: memory, streams, events, copies, captured graphs.

One implementation is CUDA (`cuda_device.py`). The tests have another, which runs each stream's work as late and in as
odd an order as the events allow, so that a missing wait shows as a wrong number on any machine.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NewType

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALIGNMENT", "CapturedGraph", "Device", "Event", "Memory", "Stream", "aligned"]

ALIGNMENT = 256
"""Bytes. TensorRT wants every I/O tensor at a multiple of it."""


def aligned(size: int) -> int:
    """`size` rounded up to the next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


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


class CapturedGraph(ABC):
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
        """A new event, for which a waiting thread sleeps; `timed` for `elapsed`, which costs a little."""

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
        """Block until what was marked is done. Raises EngineError where the work failed, DeviceLost for good."""

    @abstractmethod
    def elapsed(self, start: Event, end: Event) -> float:
        """Seconds on the device between two timed events, both of which were waited for."""

    @abstractmethod
    def capture(self, stream: Stream, body: Callable[[Stream], None]) -> CapturedGraph:
        """What `body` enqueues on the stream it is given, as a graph, not run. Raises EngineError; nothing is kept."""

    def check(self) -> None:  # noqa: B027  (a device that cannot be lost has nothing to check)
        """Raise DeviceLost where an earlier failure has left this process without its device."""

    @abstractmethod
    def close(self) -> None:
        """Give back streams, events and memory."""
