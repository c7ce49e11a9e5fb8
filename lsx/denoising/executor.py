"""Executors: what runs a program. `HostExecutor` runs it on any engines, over NumPy memory."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from lsx.bundle.bundle import Bundle
from lsx.core.cancel import CancelToken
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.threaded_stages import Stopped
from lsx.denoising.chunk_program import PLAIN, ProgramInputs
from lsx.denoising.memory_plan import plan_memory
from lsx.denoising.program import GraphIO, Operation, Program, RunGraph, View
from lsx.engines.device import ALIGNMENT
from lsx.engines.engine import Array, Engine
from lsx.errors import EngineError

__all__ = [
    "Executor",
    "HostExecutor",
    "Lender",
    "Only",
    "Results",
    "StepCallback",
    "Submission",
    "check_inputs",
    "io_of",
    "io_of_bundle",
    "vae_frames_of",
]

StepCallback = Callable[[int], None]
"""Called with the number of denoising steps that are done, where an executor sees them."""

Observer = Callable[[Operation, Mapping[str, Array]], None]
"""Called after every operation with the arrays that it wrote; they are valid until it returns."""


def io_of(engines: Mapping[str, Engine]) -> dict[str, GraphIO]:
    """The engines' tensors, for building a program."""
    return {name: GraphIO(inputs=engine.inputs, outputs=engine.outputs) for name, engine in engines.items()}


def vae_frames_of(engines: Iterable[Engine], model: ModelSpec) -> int:
    """Frames that the VAE takes at a time with these engines: TensorRT's plans take as many as a GPU is given."""
    return model.vae_frames if any(engine.on_device for engine in engines) else model.host_vae_frames


class Submission:
    """A chunk that was submitted: the receipt by which its owner, and nobody else, takes the result.

    Results are known by their submission, never by their order: several runs use one executor in turns.
    """

    def __init__(self, owner: object, complete: Callable[[Submission], Results]) -> None:
        """complete : waits for the chunk and gives its arrays, copied out of the executor's buffers, and its times."""
        self._owner, self._complete = owner, complete
        self._lock = threading.Lock()
        self._results: Results | None = None
        self._error: BaseException | None = None
        self._finished = False
        self.abandoned = False
        """Whether nobody will take the result, so that it need not be copied."""

    def finish(self) -> None:
        """Wait for the chunk and free its place in the executor. Never raises: an error waits for the owner."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
            try:
                self._results = self._complete(self)
            except BaseException as error:
                self._error = error

    def result(self, owner: object) -> Results:
        """The chunk's results, once. Raises EngineError where it failed, or is another's or was taken before."""
        if owner is not self._owner:
            raise EngineError("a run asked for another run's result; it was not given. Please report this")
        self.finish()
        if self._error is not None:
            raise self._error
        results, self._results = self._results, None
        if results is None or self.abandoned:
            raise EngineError("a chunk's result was asked for twice, or after it was given up. Please report this")
        return results


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """What one chunk of a program made."""

    arrays: dict[str, Array]
    """The program's outputs by name; new arrays that belong to whoever gets them."""
    seconds: dict[str, float]
    """Time by phase."""


class Lender(ABC):
    """Lends a run the executor of its schedule, a chunk at a time."""

    @abstractmethod
    def lent(self, stop: CancelToken, given: ProgramInputs = PLAIN) -> AbstractContextManager[Executor]:
        """The executor for chunks with what is `given`, for a block in which no other run has it.

        Raises Stopped where `stop` is cancelled before; EngineError, OutOfDeviceMemory where it cannot be made.
        """

    def charge(self, seconds: float) -> None:  # noqa: B027  (where one run is alone, nothing is shared)
        """Say what a chunk took of the engines' time, which counts against the run's share."""


class Only(Lender):
    """Lends one executor to whoever asks: for a single run, which gives what that executor's program takes."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def lent(self, stop: CancelToken, given: ProgramInputs = PLAIN) -> AbstractContextManager[Executor]:
        del stop, given
        return nullcontext(self._executor)


def io_of_bundle(bundle: Bundle) -> dict[str, GraphIO]:
    """A bundle's tensors, as engines of the graphs' own precision take them."""
    graph_io = {}
    for graph in LOOP_GRAPHS:
        entry = bundle.graph(graph)
        inputs, outputs = ({t.name: t.spec() for t in tensors} for tensors in (entry.inputs, entry.outputs))
        graph_io[graph] = GraphIO(inputs=inputs, outputs=outputs)
    return graph_io


class Executor(ABC):
    """Runs one program again and again. One thread submits at a time; results may be taken on any thread."""

    program: Program
    device_bytes: int = 0
    """Bytes of device memory that it holds, its captured graph's included; activation memory and weights are apart."""
    preparation: dict[str, float]
    """Seconds of the steps that made it ready and are worth telling apart: `warm up`, `capture`."""

    @abstractmethod
    def submit(
        self,
        inputs: Mapping[str, Array],
        owner: object = None,
        stop: CancelToken | None = None,
        on_step: StepCallback | None = None,
    ) -> Submission:
        """Start a chunk, waiting for room where there is none. `inputs` are copied before this returns.

        owner : who may take the result. stop : looked at between operations where they run one by one on this
        thread, and there on_step is called after each denoising step.
        Raises EngineError; Stopped where `stop` was cancelled on the way.
        """

    def finish(self) -> None:  # noqa: B027  (only executors with a device have chunks under way)
        """Wait for every chunk under way. Their results stay with their submissions."""

    @abstractmethod
    def close(self) -> None:
        """Finish, and free what it holds; the engines stay open."""


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
        self.preparation = {}
        self._engines = engines
        self._observe = observe
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

    def submit(
        self,
        inputs: Mapping[str, Array],
        owner: object = None,
        stop: CancelToken | None = None,
        on_step: StepCallback | None = None,
    ) -> Submission:
        check_inputs(self.program, inputs)
        if not self._arrays:
            raise EngineError("the executor is closed")
        for buffer in self.program.owned("input"):
            self._arrays[buffer.name][...] = inputs[buffer.name]
        seconds: dict[str, float] = {}
        steps = -1  # the first `step` makes the first forward's input, and is no denoising step
        for operation in self.program.operations:
            if stop is not None and stop.cancelled:
                raise Stopped
            start = time.perf_counter()
            self._run(operation)
            seconds[operation.phase] = seconds.get(operation.phase, 0.0) + time.perf_counter() - start
            if isinstance(operation, RunGraph) and operation.graph == "step":
                steps += 1
                if on_step is not None and steps:
                    on_step(steps)
        arrays = {b.name: self._arrays[b.name].copy() for b in self.program.owned("output")}
        return Submission(owner, lambda _: Results(arrays, seconds))

    def _run(self, operation: Operation) -> None:
        if isinstance(operation, RunGraph):
            feed = {tensor: self._view(view) for tensor, view in operation.feed.items()}
            outputs = self._engines[operation.graph].run(feed)
            written = {tensor: self._view(view) for tensor, view in operation.results.items()}
            for tensor, array in written.items():
                array[...] = outputs[tensor]
        else:
            written = {operation.target.buffer: self._view(operation.target)}
            self._view(operation.target)[...] = self._view(operation.source)
        if self._observe is not None:
            self._observe(operation, written)

    def _view(self, view: View) -> Array:
        array = self._arrays[view.buffer]
        index = (slice(None),) * view.axis + (slice(view.start, view.stop),)
        return array[index]

    def close(self) -> None:
        self._arrays.clear()


def _dtypes(program: Program, engines: Mapping[str, Engine]) -> dict[str, np.dtype[np.generic]]:
    """The NumPy dtypes of the program's buffers. Raises EngineError for bfloat16, which NumPy does not have."""
    some = next(iter(engines.values()))
    dtypes = {}
    for engine in engines.values():
        for spec in (*engine.inputs.values(), *engine.outputs.values()):
            dtypes[spec.dtype] = np.dtype(some.numpy_dtype(spec))
    return {dtype: dtypes[dtype] for dtype in {buffer.dtype for buffer in program.buffers.values()}}
