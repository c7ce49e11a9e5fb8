"""CUDA behind `Device`: cuda.core for pinned memory, streams, events; the runtime for copies and graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lsx.engines.device import Device, Event, Graph, Memory, Stream
from lsx.engines.gpu import driver_runtime
from lsx.errors import EngineError, OutOfDeviceMemory

__all__ = ["CudaDevice", "shared_device"]


@lru_cache
def shared_device() -> CudaDevice:
    """The process's one device. Raises BackendUnavailable where there is no GPU."""
    return CudaDevice()


class CudaDevice(Device):
    """The first GPU. Raises BackendUnavailable where there is none."""

    def __init__(self) -> None:
        self._runtime = driver_runtime()
        from cuda import core

        self._core = core
        self._device = core.Device(0)
        self._device.set_current()
        self._pinned = core.LegacyPinnedMemoryResource()
        self._streams: dict[Stream, Any] = {}
        self._idle: list[Stream] = []
        self._events: dict[Event, Any] = {}

    def enter(self) -> None:
        self._device.set_current()

    def free_bytes(self) -> int:
        free, _total = self._checked(self._runtime.cudaMemGetInfo())
        return int(free)

    def allocate(self, size: int) -> Memory:
        # Not from cuda.core's pool: it keeps what is freed, where TensorRT and `free_bytes` cannot see it.
        with self.lock:
            status, address = self._runtime.cudaMalloc(size)
        if int(status) != 0:
            self._runtime.cudaGetLastError()  # said here, and not by whatever is called next
            raise OutOfDeviceMemory(
                f"{size / 2**20:.0f} MiB of GPU memory could not be had ({self.free_bytes() / 2**20:.0f} MiB are "
                "free). Close other programs on this GPU. What a bundle needs: lsx doctor BUNDLE"
            )
        return Memory(int(address), size, None, None)

    def allocate_pinned(self, size: int) -> Memory:
        try:
            with self.lock:
                buffer = self._pinned.allocate(size)
        except Exception as error:  # cuda.core's errors share no importable class
            raise OutOfDeviceMemory(f"{size / 2**20:.0f} MiB of pinned host memory could not be had") from error
        address = int(buffer.handle)
        host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return Memory(address, size, host, buffer)

    def free(self, memory: Memory) -> None:
        with self.lock:
            if memory.host is None:
                self._checked(self._runtime.cudaFree(memory.address))
            else:
                memory.owner.close()

    def stream(self) -> Stream:
        # Used again, because PyTorch's allocator keeps memory for every stream that it has seen.
        try:
            return self._idle.pop()
        except IndexError:
            pass
        made = self._device.create_stream(options=self._core.StreamOptions(nonblocking=True))
        handle = Stream(int(made.handle))
        self._streams[handle] = made
        return handle

    def event(self, *, timed: bool = False) -> Event:
        made = self._device.create_event(options=self._core.EventOptions(timing_enabled=timed))
        handle = Event(int(made.handle))
        self._events[handle] = made
        return handle

    def discard(self, *handles: Stream | Event) -> None:
        for handle in handles:
            if handle in self._streams:
                self._idle.append(Stream(handle))
            elif handle in self._events:
                self._events.pop(Event(handle)).close()

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._checked(self._runtime.cudaMemcpyAsync(target, source, size, kind, stream))

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: Stream
    ) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._checked(
            self._runtime.cudaMemcpy2DAsync(target, target_pitch, source, source_pitch, width, rows, kind, stream)
        )

    def record(self, event: Event, stream: Stream) -> None:
        self._checked(self._runtime.cudaEventRecord(event, stream))

    def wait(self, event: Event, stream: Stream) -> None:
        self._checked(self._runtime.cudaStreamWaitEvent(stream, event, 0))

    def synchronise(self, event: Event) -> None:
        self._checked(self._runtime.cudaEventSynchronize(event))

    def elapsed(self, start: Event, end: Event) -> float:
        return float(self._checked(self._runtime.cudaEventElapsedTime(start, end))) / 1e3

    def capture(self, stream: Stream, body: Callable[[Stream], None]) -> Graph:
        # Not cuda.core's GraphBuilder: after a capture that failed it hides the reason, and may crash when closed.
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        failure: BaseException | None = None
        with self.lock:
            self._checked(runtime.cudaStreamBeginCapture(stream, mode))
            try:
                body(stream)
            except BaseException as error:
                failure = error
            status, graph = runtime.cudaStreamEndCapture(stream)  # also after a failure: else the stream takes no work
        try:
            if failure is not None or int(status) != 0:
                runtime.cudaGetLastError()  # said here, and not by whatever is called next
                if failure is not None and not isinstance(failure, Exception):
                    raise failure  # Ctrl-C
                reason = failure or self._text(status)
                raise EngineError(f"the loop could not be captured into a CUDA graph: {reason}") from failure
            executable = self._checked(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            if graph is not None and int(graph) != 0:
                runtime.cudaGraphDestroy(graph)
        self._checked(runtime.cudaGraphUpload(executable, stream))
        return _CudaGraph(self, executable)

    def _text(self, status: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        status, *values = answer
        if int(status) != 0:
            raise EngineError(f"CUDA failed: {self._text(status)} ({status.name}). See: lsx doctor")
        return values if len(values) != 1 else values[0]

    def close(self) -> None:
        for made in (*self._events.values(), *self._streams.values()):
            made.close()
        self._events.clear()
        self._streams.clear()
        self._idle.clear()


class _CudaGraph(Graph):
    def __init__(self, device: CudaDevice, executable: Any) -> None:
        self._device, self._executable = device, executable

    def launch(self, stream: Stream) -> None:
        self._device._checked(self._device._runtime.cudaGraphLaunch(self._executable, stream))

    def close(self) -> None:
        if self._executable is not None:
            self._device._runtime.cudaGraphExecDestroy(self._executable)
            self._executable = None
