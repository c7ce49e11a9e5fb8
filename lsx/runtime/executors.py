"""The executors of one bundle: which kind its engines need, and the few schedules that are kept ready."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping

from lsx.engines.device import Device, DeviceEngine, Memory
from lsx.engines.engine import Engine
from lsx.errors import OutOfDeviceMemory
from lsx.runtime.cuda import CudaExecutor, share_activation
from lsx.runtime.executor import Executor, HostExecutor, io_of
from lsx.runtime.program import call_program
from lsx.specs import ModelSpec, SampleOptions

__all__ = ["CudaExecutors", "Executors", "HostExecutors", "executors_for"]

_Key = tuple[int, int, int | None, str]


class Executors(ABC):
    """Makes an executor for a schedule, and keeps it for the next clip with the same one.

    Where memory does not do for another, kept ones go first.
    """

    most: int = 1
    """Schedules kept; the longest unused goes first."""

    def __init__(self, model: ModelSpec) -> None:
        self._model = model
        self._kept: OrderedDict[_Key, Executor] = OrderedDict()

    def get(self, options: SampleOptions) -> Executor:
        """The executor for `options`, its last clip forgotten. The guidance scale and the seed do not matter to it."""
        key = (options.steps, options.guidance_batch, options.cache_interval, options.sampler)
        if key not in self._kept:
            self._make_room(key)
            self._kept[key] = self._fitting(options)
        self._kept.move_to_end(key)
        self._kept[key].reset()
        return self._kept[key]

    def costs(self) -> dict[_Key, int]:
        """Device bytes of every schedule that is kept, by (steps, guidance batch, cache interval, sampler)."""
        return {key: executor.device_bytes for key, executor in self._kept.items()}

    def _fitting(self, options: SampleOptions) -> Executor:
        while True:
            try:
                return self._make(options)
            except OutOfDeviceMemory:
                if not self._kept:
                    raise
                self._drop_oldest()

    def _make_room(self, key: _Key) -> None:
        del key
        while len(self._kept) >= self.most:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, oldest = self._kept.popitem(last=False)
        oldest.close()

    @abstractmethod
    def _make(self, options: SampleOptions) -> Executor: ...

    def close(self) -> None:
        """Free all of them."""
        for executor in self._kept.values():
            executor.close()
        self._kept.clear()


class HostExecutors(Executors):
    """Executors over NumPy memory, for engines of any kind."""

    def __init__(self, engines: Mapping[str, Engine], model: ModelSpec) -> None:
        super().__init__(model)
        self._engines = engines

    def _make(self, options: SampleOptions) -> Executor:
        return HostExecutor(call_program(self._model, io_of(self._engines), options), self._engines)


class CudaExecutors(Executors):
    """Executors on a GPU. They never run at once, so their engines share one block of activation memory."""

    most = 4

    def __init__(
        self, engines: Mapping[str, DeviceEngine], model: ModelSpec, device: Device, *, cuda_graph: bool
    ) -> None:
        super().__init__(model)
        self._engines, self._device, self._cuda_graph = engines, device, cuda_graph
        self._batch = 0
        self._activation: Memory | None = None

    def _make_room(self, key: _Key) -> None:
        if key[1] != self._batch:  # another profile: shapes and activation memory are baked into captured graphs
            super().close()
            self._free_activation()
        super()._make_room(key)

    def _make(self, options: SampleOptions) -> Executor:
        self._device.enter()
        program = call_program(self._model, io_of(self._engines), options)
        if options.guidance_batch != self._batch:
            axes = {"b": options.guidance_batch, "F": self._model.vae_frames}
            self._activation = share_activation(list(self._engines.values()), axes, self._device)
            self._batch = options.guidance_batch
        return CudaExecutor(program, self._engines, self._device, cuda_graph=self._cuda_graph)

    def _free_activation(self) -> None:
        if self._activation is not None:
            self._device.free(self._activation)
        self._activation, self._batch = None, 0

    def close(self) -> None:
        super().close()
        self._free_activation()


def executors_for(engines: Mapping[str, Engine], model: ModelSpec, *, cuda_graph: bool = True) -> Executors:
    """The executors for a loop's engines: on the GPU where all of them are."""
    on_device = {name: engine for name, engine in engines.items() if isinstance(engine, DeviceEngine)}
    if len(on_device) < len(engines):
        return HostExecutors(engines, model)
    return CudaExecutors(on_device, model, next(iter(on_device.values())).device, cuda_graph=cuda_graph)
