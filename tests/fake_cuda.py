"""CUDA's runtime API as `cuda.bindings.runtime` gives it, over the host's memory: names, answers and errors are real.

Work runs when it is enqueued, or is kept while its stream captures. It shows what `CudaDevice` asks for; whether the
waits between streams are right is the simulated device's to find.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from cuda.bindings import runtime

__all__ = ["FakeRuntime"]

Work = Callable[[], object]
OK = runtime.cudaError_t.cudaSuccess
INVALID = runtime.cudaError_t.cudaErrorInvalidValue


class FakeRuntime:
    """One GPU with `memory` bytes."""

    def __init__(self, memory: int = 2**28) -> None:
        self.free = self.total = memory
        self.blocks: dict[int, Any] = {}
        self.handles = 0x1000
        self.alive: set[int] = set()
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.failing: dict[str, Any] = {}
        """Functions that give an error instead."""

    def __getattr__(self, name: str) -> Any:
        return getattr(runtime, name)

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("cuda") and name in self.failing:
            return lambda *_: (self.failing[name], 0, 0)
        return found

    def _handle(self) -> int:
        self.handles += 16
        self.alive.add(self.handles)
        return self.handles

    def _enqueue(self, stream: int, work: Work) -> tuple[Any]:
        assert stream in self.alive
        if stream in self.capturing:
            self.capturing[stream].append(work)
        else:
            work()
        return (OK,)

    def cudaGetDeviceCount(self) -> Any:
        return OK, 1

    def cudaGetDeviceProperties(self, index: int) -> Any:
        assert index == 0
        properties = {"name": b"Fake", "major": 9, "minor": 0, "multiProcessorCount": 1, "totalGlobalMem": self.total}
        return OK, type("Properties", (), properties)

    def cudaDriverGetVersion(self) -> Any:
        return OK, 13000

    def cudaSetDevice(self, index: int) -> Any:
        assert index == 0
        return (OK,)

    def cudaMemGetInfo(self) -> Any:
        return OK, self.free, self.total

    def cudaGetLastError(self) -> Any:
        return (OK,)

    def _new(self, size: int) -> int:
        block = (ctypes.c_uint8 * (size + 256))()
        address = -(-ctypes.addressof(block) // 256) * 256
        self.blocks[address] = (block, size)
        return address

    def cudaMalloc(self, size: int) -> Any:
        if size > self.free:
            return runtime.cudaError_t.cudaErrorMemoryAllocation, 0
        self.free -= size
        return OK, self._new(size)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        assert flags == runtime.cudaHostAllocPortable
        return OK, self._new(size)

    def cudaFree(self, address: int) -> Any:
        self.free += self.blocks.pop(address)[1]
        return (OK,)

    def cudaFreeHost(self, address: int) -> Any:
        self.blocks.pop(address)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == runtime.cudaStreamNonBlocking
        return OK, self._handle()

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        assert flags & runtime.cudaEventBlockingSync
        return OK, self._handle()

    def cudaStreamDestroy(self, handle: int) -> Any:
        self.alive.remove(handle)
        return (OK,)

    cudaEventDestroy = cudaStreamDestroy

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Any, stream: int) -> Any:
        assert kind == runtime.cudaMemcpyKind.cudaMemcpyDefault
        return self._enqueue(stream, lambda: ctypes.memmove(target, source, size))

    def cudaMemcpy2DAsync(
        self, target: int, tpitch: int, source: int, spitch: int, width: int, rows: int, kind: Any, stream: int
    ) -> Any:
        assert kind == runtime.cudaMemcpyKind.cudaMemcpyDefault

        def work() -> None:
            for row in range(rows):
                ctypes.memmove(target + row * tpitch, source + row * spitch, width)

        return self._enqueue(stream, work)

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        assert {event, stream} <= self.alive
        return (OK,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> Any:
        assert {event, stream} <= self.alive
        assert flags == 0
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> Any:
        assert event in self.alive
        return (OK,)

    def cudaEventElapsedTime(self, start: int, end: int) -> Any:
        assert {start, end} <= self.alive
        return OK, 1.0

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> Any:
        assert mode == runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.capturing[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        graph = self._handle()
        self.graphs[graph] = self.capturing.pop(stream)
        return OK, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        assert flags == 0
        made = self._handle()
        self.graphs[made] = list(self.graphs[graph])
        return OK, made

    def cudaGraphUpload(self, graph: int, stream: int) -> Any:
        assert graph in self.graphs
        assert stream in self.alive
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        assert stream in self.alive
        for work in self.graphs[graph]:
            work()
        return (OK,)

    def cudaGraphDestroy(self, graph: int) -> Any:
        self.graphs.pop(graph)
        self.alive.remove(graph)
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy
