"""The executors of one bundle: which kind its engines need, and the few schedules that are kept ready."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from lsx.core.cancel import CancelToken
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.core.turns import PRIORITY, Place, Turns
from lsx.denoising.activation_block import ActivationBlock
from lsx.denoising.chunk_program import PLAIN, ProgramInputs, chunk_program
from lsx.denoising.cuda_executor import CudaExecutor
from lsx.denoising.executor import Executor, HostExecutor, Lender, io_of, vae_frames_of
from lsx.engines.device import Device
from lsx.engines.device_engine import Context, DeviceEngine
from lsx.engines.engine import Engine
from lsx.errors import OutOfDeviceMemory

__all__ = ["CudaExecutorCache", "ExecutorCache", "HostExecutorCache", "ScheduleKey", "executor_cache_for"]


class ScheduleKey(NamedTuple):
    """What a schedule's executor depends on; the guidance scale and the seed do not matter to it."""

    steps: int
    guidance_batch: int
    cache_interval: int | None
    sampler: str
    encoded: bool = False
    """Whether the VAE encoder's part of the work was done before, and kept in an avatar."""
    kept: bool = False
    """Whether chunks go on from the latents of the one before."""


class ExecutorCache(ABC):
    """Makes an executor for a schedule, and keeps it for the next clip with the same one.

    Runs take turns, a chunk each: engines, activation memory and device buffers are one run's at a time. On
    out-of-memory, evicts the oldest executor first.
    """

    most: int = 1
    """Schedules kept; the longest unused goes first."""

    def __init__(self, model: ModelSpec) -> None:
        self._model = model
        self._kept: OrderedDict[ScheduleKey, Executor] = OrderedDict()
        self.turns = Turns()
        self._latest: Executor | None = None

    def lender(self, options: SamplingOptions, priority: int = PRIORITY) -> Lender:
        """Lends one run the executors for `options`, a chunk at a time, as its `priority` and its share allow."""
        return _Schedule(self, options, Place(priority))

    @contextmanager
    def lent(
        self, options: SamplingOptions, stop: CancelToken, given: ProgramInputs = PLAIN, place: Place | None = None
    ) -> Iterator[Executor]:
        """The executor for `options`, for a block in which no other run has any of them.

        place : of the run that asks; None asks once, as a run that comes new.

        Raises Stopped where `stop` is cancelled before it is this run's turn; EngineError, OutOfDeviceMemory.
        """
        with self.turns.taken(place or Place(), stop):
            yield self.get(options, given)

    def get(self, options: SamplingOptions, given: ProgramInputs = PLAIN) -> Executor:
        """The executor for `options`, for callers that are alone.

        Chunks under way in another one are finished first: all of them work in the same activation memory.
        """
        key = ScheduleKey(
            options.steps,
            options.guidance_batch,
            options.cache_interval,
            options.sampler,
            given.conditioning,
            given.kept,
        )
        if self._latest is not None and self._kept.get(key) is not self._latest:
            self._latest.finish()
        if key not in self._kept:
            self._make_room(key)
            self._kept[key] = self._fitting(options, given)
        self._kept.move_to_end(key)
        self._latest = self._kept[key]
        return self._latest

    def costs(self) -> dict[ScheduleKey, int]:
        """Device bytes of every schedule that is kept."""
        return {key: executor.device_bytes for key, executor in list(self._kept.items())}

    def _fitting(self, options: SamplingOptions, given: ProgramInputs) -> Executor:
        while True:
            try:
                return self._make(options, given)
            except OutOfDeviceMemory:
                if not self._kept:
                    raise
                self._drop_oldest()

    def _make_room(self, key: ScheduleKey) -> None:
        del key
        while len(self._kept) >= self.most:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, oldest = self._kept.popitem(last=False)
        if oldest is self._latest:
            self._latest = None
        oldest.close()

    @abstractmethod
    def _make(self, options: SamplingOptions, given: ProgramInputs) -> Executor: ...

    def close(self) -> None:
        """Free all of them."""
        while self._kept:
            self._drop_oldest()


class _Schedule(Lender):
    """Lends one run one schedule's executors."""

    def __init__(self, executors: ExecutorCache, options: SamplingOptions, place: Place) -> None:
        self._executors, self._options, self._place = executors, options, place

    def lent(self, stop: CancelToken, given: ProgramInputs = PLAIN) -> AbstractContextManager[Executor]:
        return self._executors.lent(self._options, stop, given, self._place)

    def charge(self, seconds: float) -> None:
        self._executors.turns.charge(self._place, seconds)


class HostExecutorCache(ExecutorCache):
    """Executors over NumPy memory, for engines of any kind."""

    def __init__(self, engines: Mapping[str, Engine], model: ModelSpec) -> None:
        super().__init__(model)
        self._engines = engines

    def _make(self, options: SamplingOptions, given: ProgramInputs) -> Executor:
        graphs, size = io_of(self._engines), vae_frames_of(self._engines.values(), self._model)
        return HostExecutor(chunk_program(self._model, graphs, options, vae_frames=size, given=given), self._engines)


class CudaExecutorCache(ExecutorCache):
    """Executors on a GPU. They never run at once, so their contexts share one block of activation memory.

    A context is made for each set of lengths, with guidance and without, and kept: the graphs captured with one go on
    being right while another is used.
    """

    most = 4

    def __init__(
        self,
        engines: Mapping[str, DeviceEngine],
        model: ModelSpec,
        device: Device,
        *,
        cuda_graph: bool,
        activation: ActivationBlock | None = None,
    ) -> None:
        """activation : that of other executors of the same engines, which never run at once with these."""
        super().__init__(model)
        self._engines, self._device, self._cuda_graph = engines, device, cuda_graph
        self.activation = activation or ActivationBlock(engines.values(), device)
        self._own_activation = activation is None
        self._contexts: dict[tuple[str, frozenset[tuple[str, int]]], Context] = {}

    def _make(self, options: SamplingOptions, given: ProgramInputs) -> Executor:
        self._device.enter()
        program = chunk_program(self._model, io_of(self._engines), options, given=given)
        axes = {"b": options.guidance_batch, "F": self._model.vae_frames}
        contexts = {graph: self._context(graph, axes) for graph in self._engines}
        return CudaExecutor(program, contexts, self._device, cuda_graph=self._cuda_graph)

    def _context(self, graph: str, axes: Mapping[str, int]) -> Context:
        engine = self._engines[graph]
        key = (graph, frozenset(engine.own_axes(axes).items()))
        if key not in self._contexts:
            context = engine.context(axes)
            try:
                self.activation.lend(context)
            except BaseException:
                context.close()
                raise
            self._contexts[key] = context
        return self._contexts[key]

    def close(self) -> None:
        super().close()
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        if self._own_activation:
            self.activation.close()


def executor_cache_for(
    engines: Mapping[str, Engine], model: ModelSpec, *, cuda_graph: bool = True, beside: ExecutorCache | None = None
) -> ExecutorCache:
    """The executors for a loop's engines: on the GPU where all of them are.

    beside : others of the same engines that never run at once with these, whose activation memory they then share.
    Close those last.
    """
    on_device = {name: engine for name, engine in engines.items() if isinstance(engine, DeviceEngine)}
    if len(on_device) < len(engines):
        return HostExecutorCache(engines, model)
    device = next(iter(on_device.values())).device
    activation = beside.activation if isinstance(beside, CudaExecutorCache) else None
    return CudaExecutorCache(on_device, model, device, cuda_graph=cuda_graph, activation=activation)
