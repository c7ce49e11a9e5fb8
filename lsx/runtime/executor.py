"""Executors: what runs a program. `HostExecutor` runs it on any engines, over NumPy memory."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lsx.bundle import Bundle
from lsx.engines.device import ALIGNMENT
from lsx.engines.engine import Array, Engine
from lsx.errors import EngineError
from lsx.runtime.memory import plan_memory
from lsx.runtime.program import LOOP_GRAPHS, Enqueue, GraphIO, Operation, Program, View

__all__ = ["CallResult", "Executor", "HostExecutor", "check_inputs", "io_of", "io_of_bundle"]

Observer = Callable[[Operation, Mapping[str, Array]], None]
"""Called after every operation with the arrays that it wrote; they are valid until it returns."""


def io_of(engines: Mapping[str, Engine]) -> dict[str, GraphIO]:
    """The engines' tensors, for building a program."""
    return {name: GraphIO(inputs=engine.inputs, outputs=engine.outputs) for name, engine in engines.items()}


@dataclass(frozen=True, slots=True, eq=False)
class CallResult:
    """A program's outputs by name. They are the caller's until `release`, which the caller calls once."""

    arrays: Mapping[str, Array]
    release: Callable[[], None]


def io_of_bundle(bundle: Bundle) -> dict[str, GraphIO]:
    """A bundle's tensors, as engines of the graphs' own precision take them."""
    made = {}
    for graph in LOOP_GRAPHS:
        entry = bundle.graph(graph)
        inputs, outputs = ({t.name: t.spec() for t in tensors} for tensors in (entry.inputs, entry.outputs))
        made[graph] = GraphIO(inputs=inputs, outputs=outputs)
    return made


class Executor(ABC):
    """Runs one program again and again. Calls go in by `submit` and come out by `result`, in order; one thread each."""

    program: Program
    seconds: dict[str, float]
    """Time by phase, of all calls so far."""
    device_bytes: int = 0
    """Of device memory that it holds, its captured graph's own included; activation memory and weights are apart."""
    preparation: dict[str, float]
    """Seconds of the steps that made it ready and are worth telling apart: `warm up`, `capture`."""

    @abstractmethod
    def submit(self, inputs: Mapping[str, Array]) -> None:
        """Start a call, once there is room for it. `inputs` are copied before this returns. Raises EngineError."""

    @abstractmethod
    def result(self) -> CallResult:
        """The oldest call's outputs, waiting for it. Raises EngineError."""

    def stop(self) -> None:  # noqa: B027  (only executors with a ring wait)
        """Let a `submit` that waits for room raise Stopped, from any thread, until the next `reset`."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the calls under way and take back every result, for the next clip."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; the engines stay open."""


def check_inputs(program: Program, inputs: Mapping[str, Array]) -> None:
    """Raise EngineError unless `inputs` are arrays of the program's shapes."""
    for buffer in program.owned("input"):
        shape = inputs[buffer.name].shape
        if shape != buffer.shape:
            raise EngineError(f"{buffer.name} is {list(shape)}; the loop takes {list(buffer.shape)}")


class HostExecutor(Executor):
    """Runs a program on the CPU's memory, with any engines: the memory plan and the operations of the GPU's."""

    def __init__(self, program: Program, engines: Mapping[str, Engine], observe: Observer | None = None) -> None:
        self.program = program
        self.seconds, self.preparation = {}, {}
        self._engines = engines
        self._observe = observe
        self._done: deque[dict[str, Array]] = deque()
        plan = plan_memory(program)
        block = np.empty(plan.size + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        dtypes = _dtypes(program, engines)
        self._arrays: dict[str, Array] = {}
        for name, offset in plan.offsets.items():
            buffer = program.buffers[name]
            memory = block[start + offset : start + offset + buffer.size]
            self._arrays[name] = memory.view(dtypes[buffer.dtype]).reshape(buffer.shape)
        for name, value in program.constants.items():
            self._arrays[name][...] = value

    def submit(self, inputs: Mapping[str, Array]) -> None:
        check_inputs(self.program, inputs)
        for buffer in self.program.owned("input"):
            self._arrays[buffer.name][...] = inputs[buffer.name]
        for operation in self.program.operations:
            start = time.perf_counter()
            self._run(operation)
            taken = time.perf_counter() - start
            self.seconds[operation.phase] = self.seconds.get(operation.phase, 0.0) + taken
        self._done.append({b.name: self._arrays[b.name].copy() for b in self.program.owned("output")})

    def _run(self, operation: Operation) -> None:
        if isinstance(operation, Enqueue):
            feed = {tensor: self._view(view) for tensor, view in operation.feed.items()}
            made = self._engines[operation.graph].run(feed)
            written = {tensor: self._view(view) for tensor, view in operation.results.items()}
            for tensor, array in written.items():
                array[...] = made[tensor]
        else:
            written = {operation.target.buffer: self._view(operation.target)}
            self._view(operation.target)[...] = self._view(operation.source)
        if self._observe is not None:
            self._observe(operation, written)

    def _view(self, view: View) -> Array:
        array = self._arrays[view.buffer]
        index = (slice(None),) * view.axis + (slice(view.start, view.stop),)
        return array[index]

    def result(self) -> CallResult:
        return CallResult(self._done.popleft(), lambda: None)

    def reset(self) -> None:
        self._done.clear()
        self.seconds.clear()

    def close(self) -> None:
        self.reset()
        self._arrays.clear()


def _dtypes(program: Program, engines: Mapping[str, Engine]) -> dict[str, np.dtype[np.generic]]:
    """The NumPy dtypes of the program's buffers. Raises EngineError for bfloat16, which NumPy does not have."""
    some = next(iter(engines.values()))
    found = {}
    for engine in engines.values():
        for spec in (*engine.inputs.values(), *engine.outputs.values()):
            found[spec.dtype] = np.dtype(some.numpy_dtype(spec))
    return {dtype: found[dtype] for dtype in {buffer.dtype for buffer in program.buffers.values()}}
