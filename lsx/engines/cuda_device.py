"""CUDA behind `Device`, by the runtime API of cuda-bindings alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lsx.engines.device import CapturedGraph, Device, Event, Memory, Stream
from lsx.engines.gpu_info import driver_runtime
from lsx.errors import DeviceLost, EngineError, OutOfDeviceMemory

__all__ = ["RUNTIME_CALLS", "CudaDevice", "shared_device"]

RUNTIME_CALLS = (
    "cudaDriverGetVersion",
    "cudaEventCreateWithFlags",
    "cudaEventDestroy",
    "cudaEventElapsedTime",
    "cudaEventRecord",
    "cudaEventSynchronize",
    "cudaFree",
    "cudaFreeHost",
    "cudaGetDeviceCount",
    "cudaGetDeviceProperties",
    "cudaGetErrorString",
    "cudaGetLastError",
    "cudaGraphDestroy",
    "cudaGraphExecDestroy",
    "cudaGraphInstantiate",
    "cudaGraphLaunch",
    "cudaGraphUpload",
    "cudaHostAlloc",
    "cudaMalloc",
    "cudaMemGetInfo",
    "cudaMemcpy2DAsync",
    "cudaMemcpyAsync",
    "cudaSetDevice",
    "cudaStreamBeginCapture",
    "cudaStreamCreateWithFlags",
    "cudaStreamDestroy",
    "cudaStreamEndCapture",
    "cudaStreamWaitEvent",
)
"""Every function of the runtime API that lsx calls; `make gpu` tries each."""

_LOST = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorContained",
        "cudaErrorECCUncorrectable",
        "cudaErrorExternalDevice",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorTensorMemoryLeak",
    }
)
"""Errors after which CUDA answers every call of the process with the same one."""


@lru_cache
def shared_device() -> CudaDevice:
    """The process's one device. Raises BackendUnavailable where there is no GPU."""
    return CudaDevice()


class CudaDevice(Device):
    """The first GPU. Raises BackendUnavailable where there is none."""

    def __init__(self, runtime: Any = None) -> None:
        """runtime : cuda-bindings' runtime API, or what answers like it."""
        self._runtime = driver_runtime() if runtime is None else runtime
        self._streams: set[Stream] = set()
        self._idle: list[Stream] = []
        self._events: set[Event] = set()
        self.enter()

    def enter(self) -> None:
        self._checked(self._runtime.cudaSetDevice(0))

    def free_bytes(self) -> int:
        free, _total = self._checked(self._runtime.cudaMemGetInfo())
        return int(free)

    def allocate(self, size: int) -> Memory:
        # Not from a pool: it keeps what is freed, where TensorRT and `free_bytes` cannot see it.
        with self.lock:
            status, address = self._runtime.cudaMalloc(size)
        if int(status) != 0:
            self._runtime.cudaGetLastError()  # said here, and not by whatever is called next
            self._raise_if_lost(status)
            raise OutOfDeviceMemory(
                f"{size / 2**20:.0f} MiB of GPU memory could not be had ({self.free_bytes() / 2**20:.0f} MiB are "
                "free). Close other programs on this GPU. What a bundle needs: lsx doctor BUNDLE"
            )
        return Memory(int(address), size, None)

    def allocate_pinned(self, size: int) -> Memory:
        with self.lock:
            status, address = self._runtime.cudaHostAlloc(size, self._runtime.cudaHostAllocPortable)
        if int(status) != 0:
            self._runtime.cudaGetLastError()
            self._raise_if_lost(status)
            raise OutOfDeviceMemory(
                f"{size / 2**20:.0f} MiB of pinned host memory could not be had ({self._text(status)}). Free memory "
                "of the host, or raise its limit of locked memory"
            )
        host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address)))
        return Memory(int(address), size, host)

    def free(self, memory: Memory) -> None:
        give_back = self._runtime.cudaFree if memory.host is None else self._runtime.cudaFreeHost
        with self.lock:
            self._checked(give_back(memory.address))

    def stream(self) -> Stream:
        # Used again, because PyTorch's allocator keeps memory for every stream that it has seen.
        try:
            return self._idle.pop()
        except IndexError:
            pass
        flags = self._runtime.cudaStreamNonBlocking
        handle = Stream(int(self._checked(self._runtime.cudaStreamCreateWithFlags(flags))))
        self._streams.add(handle)
        return handle

    def event(self, *, timed: bool = False) -> Event:
        # Blocking: a thread that waits sleeps instead of spinning on a core that decoding and pasting need.
        flags = self._runtime.cudaEventBlockingSync
        if not timed:
            flags |= self._runtime.cudaEventDisableTiming
        handle = Event(int(self._checked(self._runtime.cudaEventCreateWithFlags(flags))))
        self._events.add(handle)
        return handle

    def discard(self, *handles: Stream | Event) -> None:
        for handle in handles:
            if handle in self._streams:
                self._idle.append(Stream(handle))
            elif handle in self._events:
                self._events.discard(Event(handle))
                self._runtime.cudaEventDestroy(handle)

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

    def capture(self, stream: Stream, body: Callable[[Stream], None]) -> CapturedGraph:
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
                self._raise_if_lost(status)
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
            self._raise_if_lost(status)
            raise EngineError(f"CUDA failed: {self._text(status)} ({status.name}). See: lsx doctor")
        return values if len(values) != 1 else values[0]

    def _raise_if_lost(self, status: Any) -> None:
        if status.name in _LOST:
            raise DeviceLost(
                f"CUDA failed for good: {self._text(status)} ({status.name}). Every later call of this process on the "
                "GPU fails, too: restart the process. If it happens again, please report it with the output of "
                "LSX_TENSORRT_LOG=verbose"
            )

    def check(self) -> None:
        (status,) = self._runtime.cudaGetLastError()
        self._raise_if_lost(status)

    def close(self) -> None:
        for event in self._events:
            self._runtime.cudaEventDestroy(event)
        for stream in self._streams:
            self._runtime.cudaStreamDestroy(stream)
        self._events.clear()
        self._streams.clear()
        self._idle.clear()


class _CudaGraph(CapturedGraph):
    def __init__(self, device: CudaDevice, executable: Any) -> None:
        self._device, self._executable = device, executable

    def launch(self, stream: Stream) -> None:
        self._device._checked(self._device._runtime.cudaGraphLaunch(self._executable, stream))

    def close(self) -> None:
        if self._executable is not None:
            self._device._runtime.cudaGraphExecDestroy(self._executable)
            self._executable = None
