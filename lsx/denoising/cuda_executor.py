"""The CUDA executor: a program's memory taken once, its operations captured once, every chunk one graph launch.

Three streams: inputs go up while the last chunk computes and the one before comes down. Between the pinned rings and
the program's own buffers stand staging buffers on the device, one set a slot, so that the graph's addresses
never change.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from lsx.core.cancel import CancelToken
from lsx.denoising.executor import Executor, Results, StepCallback, Submission, check_inputs
from lsx.denoising.memory_plan import MemoryPlan, plan_memory
from lsx.denoising.program import Buffer, Copy, Program, RunGraph, View
from lsx.engines.device import CapturedGraph, Device, Event, Memory, Stream, aligned
from lsx.engines.device_engine import Context, bfloat16_dtype
from lsx.engines.engine import NUMPY_DTYPES, Array
from lsx.errors import EngineError, OutOfDeviceMemory

__all__ = ["CudaExecutor", "executor_bytes"]

_PHASES = ("upload", "device", "download")

SLOTS = 3
"""Chunks between submit and result: one going up, one computing, one being read."""


def executor_bytes(program: Program, plan: MemoryPlan, slots: int = SLOTS) -> tuple[int, int]:
    """(device, pinned) bytes that an executor of `program` takes, activation memory and weights apart."""
    ring = slots * (_offsets(program, "input")[1] + _offsets(program, "output")[1])
    return plan.size + ring, ring


class CudaExecutor(Executor):
    """Runs a program on a GPU.

    Everything is allocated here and nothing later. Where a graph cannot be captured, chunks are enqueued operation by
    operation, with a warning. The contexts stay their owner's, who has given them their activation memory. A chunk has
    a slot of the ring until its results are copied out of pinned memory, which its owner does, or a submit that
    needs the slot.
    """

    def __init__(
        self,
        program: Program,
        contexts: Mapping[str, Context],
        device: Device,
        *,
        cuda_graph: bool = True,
        slots: int = SLOTS,
    ) -> None:
        self.program = program
        self.preparation = {}
        self._contexts, self._device = contexts, device
        self._plan = plan_memory(program)
        needed, _ = executor_bytes(program, self._plan, slots)
        device.enter()
        free = device.free_bytes()
        if needed > free:
            raise OutOfDeviceMemory(
                f"the loop needs {needed / 2**20:.0f} MiB more of GPU memory, and {free / 2**20:.0f} MiB are free. "
                "Close other programs on this GPU, or use a smaller resolution"
            )
        self.device_bytes = needed
        self._memory: list[Memory] = []
        self._handles: list[Stream | Event] = []
        self._under_way: deque[Submission] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self.graph: CapturedGraph | None = None
        try:
            self._block = self._take(self._plan.size)
            self._upload, self._compute, self._download = (self._stream() for _ in range(3))
            self._ready = self._event()
            self._slots = [_Slot(self) for _ in range(slots)]
            self._free = deque(self._slots)
            self._load_constants()
            self._prepare(cuda_graph)
        except BaseException:
            self._free_all()
            raise

    def _take(self, size: int, *, pinned: bool = False) -> Memory:
        memory = self._device.allocate_pinned(size) if pinned else self._device.allocate(size)
        self._memory.append(memory)
        return memory

    def _stream(self) -> Stream:
        stream = self._device.stream()
        self._handles.append(stream)
        return stream

    def _event(self) -> Event:
        event = self._device.event(timed=True)
        self._handles.append(event)
        return event

    def _load_constants(self) -> None:
        for name, value in self.program.constants.items():
            buffer = self.program.buffers[name]
            host = self._device.allocate_pinned(max(buffer.size, 1))
            _array(host, 0, buffer)[...] = value
            self._device.copy(self._address(View(buffer=name)), host.address, buffer.size, self._compute)
            self._device.record(self._ready, self._compute)
            self._device.synchronise(self._ready)
            self._device.free(host)

    def _prepare(self, cuda_graph: bool) -> None:
        """Run once outside of any capture, as TensorRT asks after new shapes, then capture."""
        start = time.perf_counter()
        for buffer in self.program.owned("input"):
            self._clear(buffer)
        self._enqueue(self._compute)
        self._device.record(self._ready, self._compute)
        self._device.synchronise(self._ready)
        self.preparation["warm up"] = time.perf_counter() - start
        for name in self.program.graphs():
            self._contexts[name].warmed_up()
        if not cuda_graph:
            return
        graphs = self.program.graphs()
        unable = [name for name in graphs if not self._contexts[name].capturable(self._compute)]
        if unable:
            warnings.warn(f"no CUDA graph: {', '.join(unable)} cannot be captured here", RuntimeWarning, stacklevel=3)
            return
        try:
            start, free = time.perf_counter(), self._device.free_bytes()
            self.graph = self._device.capture(self._compute, self._enqueue)
            self.preparation["capture"] = time.perf_counter() - start
            self.device_bytes += max(free - self._device.free_bytes(), 0)
        except EngineError as error:
            self.graph = None
            warnings.warn(f"{error}. Chunks are enqueued one operation at a time", RuntimeWarning, stacklevel=3)

    def _clear(self, buffer: Buffer) -> None:
        """Zero an input, so that the first run computes on numbers."""
        slot = self._slots[0]
        array = slot.arrays_in[buffer.name]
        array[...] = 0
        offset = slot.offsets_in[buffer.name]
        self._device.copy(
            self._address(View(buffer=buffer.name)), slot.pinned_in.address + offset, buffer.size, self._compute
        )

    def _address(self, view: View) -> int:
        buffer = self.program.buffers[view.buffer]
        row = buffer.size // buffer.shape[0] if view.axis == 0 and view.start else 0
        return self._block.address + self._plan.offsets[view.buffer] + view.start * row

    def _enqueue(self, stream: Stream) -> None:
        """Every operation of the program, in order, on one stream."""
        for operation in self.program.operations:
            if isinstance(operation, RunGraph):
                views = {**operation.feed, **operation.results}
                addresses = {tensor: self._address(view) for tensor, view in views.items()}
                self._contexts[operation.graph].enqueue(addresses, stream)
            else:
                self._enqueue_copy(operation, stream)

    def _enqueue_copy(self, operation: Copy, stream: Stream) -> None:
        axis = max(operation.source.axis, operation.target.axis)  # at most one of them is a part
        source, target = (self._rows(view, axis) for view in (operation.source, operation.target))
        if source[2:] != target[2:]:
            raise EngineError(f"a copy of {operation.source} to {operation.target}, which differ in shape")
        width, rows = source[2:]
        self._device.copy_rows(target[0], target[1], source[0], source[1], width, rows, stream)

    def _rows(self, view: View, axis: int) -> tuple[int, int, int, int]:
        """(address, pitch, width, rows) of a view along an axis: runs of `width` bytes that lie a pitch apart."""
        buffer = self.program.buffers[view.buffer]
        start = self._block.address + self._plan.offsets[view.buffer]
        shape = view.shape_in(buffer)
        inner = buffer.size // int(np.prod(buffer.shape[: axis + 1]))
        rows = int(np.prod(shape[:axis]))
        return start + view.start * inner, buffer.shape[axis] * inner, shape[axis] * inner, rows

    def submit(
        self,
        inputs: Mapping[str, Array],
        owner: object = None,
        stop: CancelToken | None = None,
        on_step: StepCallback | None = None,
    ) -> Submission:
        del stop, on_step  # nothing here takes long, and what was enqueued cannot be taken back
        check_inputs(self.program, inputs)
        slot = self._free_slot()
        submission = Submission(owner, lambda this: self._completed(slot, this))
        slot.submission = submission
        try:
            self._enqueue_chunk(slot, inputs)
        except BaseException:
            slot.submission = None
            try:
                self._settle()
            finally:
                with self._lock:
                    self._free.append(slot)
            raise
        with self._lock:
            self._under_way.append(submission)
        return submission

    def _free_slot(self) -> _Slot:
        """A free place in the ring. Where there is none the oldest chunk is finished, its result kept for its owner.

        So no run ever waits for another one's consumer. Raises EngineError where the executor is closed.
        """
        while True:
            with self._lock:
                if self._closed:
                    raise EngineError("the executor is closed")
                if self._free:
                    return self._free.popleft()
                oldest = self._under_way[0]
            oldest.finish()

    def _enqueue_chunk(self, slot: _Slot, inputs: Mapping[str, Array]) -> None:
        device = self._device
        device.enter()
        for name, array in slot.arrays_in.items():
            array[...] = inputs[name]
        device.record(slot.begun[0], self._upload)
        device.copy(slot.staged_in.address, slot.pinned_in.address, slot.pinned_in.size, self._upload)
        device.record(slot.uploaded, self._upload)
        device.wait(slot.uploaded, self._compute)
        device.record(slot.begun[1], self._compute)
        for name, offset in slot.offsets_in.items():
            size = self.program.buffers[name].size
            device.copy(self._address(View(buffer=name)), slot.staged_in.address + offset, size, self._compute)
        if self.graph is None:
            self._enqueue(self._compute)
        else:
            self.graph.launch(self._compute)
        for name, offset in slot.offsets_out.items():
            size = self.program.buffers[name].size
            device.copy(slot.staged_out.address + offset, self._address(View(buffer=name)), size, self._compute)
        device.record(slot.computed, self._compute)
        device.wait(slot.computed, self._download)
        device.record(slot.begun[2], self._download)
        device.copy(slot.pinned_out.address, slot.staged_out.address, slot.pinned_out.size, self._download)
        device.record(slot.downloaded, self._download)

    @property
    def under_way(self) -> int:
        """Chunks submitted that are not finished."""
        return len(self._under_way)

    def _completed(self, slot: _Slot, submission: Submission) -> Results:
        """Wait for the chunk in `slot`, copy its results out, and free the slot."""
        try:
            self._device.enter()
            self._device.synchronise(slot.downloaded)
            if slot.submission is not submission:
                raise EngineError(
                    "a place of the ring holds another run's chunk; nothing was given. Please report this"
                )
            seconds = slot.seconds(self._device)
            arrays = {} if submission.abandoned else {n: a.copy() for n, a in slot.arrays_out.items()}
            return Results(arrays, seconds)
        finally:
            with self._lock:
                slot.submission = None
                self._under_way.remove(submission)
                self._free.append(slot)

    def finish(self) -> None:
        while True:
            with self._lock:
                if not self._under_way:
                    return
                oldest = self._under_way[0]
            oldest.finish()

    def _settle(self) -> None:
        """Wait for all three streams, also for what a submit left in them that failed on the way."""
        self._device.enter()
        for stream in (self._upload, self._compute, self._download):
            self._device.record(self._ready, stream)
            self._device.synchronise(self._ready)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        try:
            self.finish()
            self._settle()
        finally:
            self._free_all()

    def _free_all(self) -> None:
        if self.graph is not None:
            self.graph.close()
            self.graph = None
        for memory in self._memory:
            self._device.free(memory)
        self._device.discard(*self._handles)
        self._memory.clear()
        self._handles.clear()


class _Slot:
    """The ring's place for one chunk: pinned memory and staging buffers, in and out, and its events."""

    def __init__(self, executor: CudaExecutor) -> None:
        program = executor.program
        self.offsets_in, size_in = _offsets(program, "input")
        self.offsets_out, size_out = _offsets(program, "output")
        self.pinned_in, self.staged_in = executor._take(size_in, pinned=True), executor._take(size_in)
        self.pinned_out, self.staged_out = executor._take(size_out, pinned=True), executor._take(size_out)
        self.arrays_in = {n: _array(self.pinned_in, o, program.buffers[n]) for n, o in self.offsets_in.items()}
        self.arrays_out = {n: _array(self.pinned_out, o, program.buffers[n]) for n, o in self.offsets_out.items()}
        self.uploaded, self.computed, self.downloaded = (executor._event() for _ in range(3))
        self.begun = tuple(executor._event() for _ in _PHASES)
        self.submission: Submission | None = None
        """Whose chunk is in it."""

    def seconds(self, device: Device) -> dict[str, float]:
        """Read the seconds by phase, of the chunk that was waited for."""
        ends = (self.uploaded, self.computed, self.downloaded)
        return {p: device.elapsed(a, b) for p, a, b in zip(_PHASES, self.begun, ends, strict=True)}


def _offsets(program: Program, owner: Any) -> tuple[dict[str, int], int]:
    offsets, size = {}, 0
    for buffer in program.owned(owner):
        offsets[buffer.name] = size
        size += aligned(buffer.size)
    return offsets, size


def _array(memory: Memory, offset: int, buffer: Buffer) -> Array:
    """A buffer's place in pinned memory as an array; bfloat16 takes float32 values, rounded as they are written."""
    if memory.host is None:
        raise EngineError("the device gave pinned memory that the CPU cannot read")
    raw = memory.host[offset : offset + buffer.size]
    dtype = bfloat16_dtype() if buffer.dtype == "bfloat16" else NUMPY_DTYPES[buffer.dtype]
    return np.asarray(raw.view(dtype).reshape(buffer.shape))
