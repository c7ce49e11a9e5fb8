"""A plan, run by TensorRT or TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import PlanEntry
from lsx.core.tensors import TensorSpec
from lsx.engines.device import Device, Memory, Stream
from lsx.engines.device_engine import Context, DeviceEngine
from lsx.engines.gpu_info import first_gpu
from lsx.engines.tensorrt.inspection import plan_table
from lsx.engines.tensorrt.libraries import Library
from lsx.engines.tensorrt.loaded_plan import LoadedPlan
from lsx.engines.tensorrt.plans import profile_for
from lsx.errors import EngineError, StaleEngine

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["TensorRtContext", "TensorRtEngine"]


class TensorRtEngine(DeviceEngine):
    """A plan. Engines of one plan share its weights, also those of several LipSync objects of a process."""

    def __init__(
        self,
        library: Library,
        bundle: Bundle,
        plan: PlanEntry,
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
        device: Device,
        *,
        trust_code: bool = False,
    ) -> None:
        super().__init__(plan.graph, inputs, outputs, device)
        self.library, self._bundle, self._plan = library, bundle, plan
        device.enter()
        self.loaded: LoadedPlan | None = LoadedPlan.taken(library, bundle, plan, device, trust_code=trust_code)
        try:
            self._check_io(self.loaded.engine)
        except BaseException:
            self.close()
            raise

    def _check_io(self, engine: trt.ICudaEngine) -> None:
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        expected = {*self.inputs, *self.outputs}
        if names != expected:
            raise StaleEngine(
                f"{self._bundle.path / self._plan.file.path} has the tensors {', '.join(sorted(names))}, and its graph "
                f"{', '.join(sorted(expected))}. Build it again: lsx build {self._bundle.path} "
                f"--backend {self.library.backend} --force"
            )

    @property
    def description(self) -> str:
        return f"{self.library.backend} {self.library.version}, {self._plan.target} plan on {first_gpu().name}"

    def bytes_moved(self) -> int | None:
        table = plan_table(self._bundle, self._plan)
        return None if table is None or table.varying else table.moved

    @property
    def activation_bytes(self) -> int:
        engine = self._open().engine
        profiles = range(engine.num_optimization_profiles)
        return max(int(engine.get_device_memory_size_for_profile_v2(index)) for index in profiles)

    def context(self, axes: Mapping[str, int]) -> TensorRtContext:
        index = profile_for(self._plan, self.own_axes(axes), self._bundle)
        return TensorRtContext(self, self._open(), index, axes)

    def _open(self) -> LoadedPlan:
        if self.loaded is None:
            raise EngineError(f"{self.graph}: the engine is closed")
        return self.loaded

    def close(self) -> None:
        if self.loaded is None:
            return
        self.device.enter()
        self.release_buffers()
        self.loaded.release()
        self.loaded = None


class TensorRtContext(Context):
    """An execution context at one profile and one set of lengths. Its activation memory is the caller's."""

    def __init__(self, engine: TensorRtEngine, loaded: LoadedPlan, profile: int, axes: Mapping[str, int]) -> None:
        self._graph, self._library, self._loaded, self._device = engine.graph, engine.library, loaded, engine.device
        self._device.enter()
        self._execution = loaded.new_context()
        self._set_profile(profile)
        for name, spec in engine.inputs.items():
            shape = list(spec.shape_at(axes))
            built: Any = loaded.engine.get_tensor_shape(name)  # a sequence, unknown to the stubs
            varies = -1 in tuple(built)
            if varies and not self._execution.set_input_shape(name, shape):
                raise self._failure(f"{name} cannot be {shape}")
        self._activation_bytes = int(self._execution.update_device_memory_size_for_shapes())

    def _set_profile(self, index: int) -> None:
        if index == self._execution.active_optimization_profile:
            return
        stream, changed = self._device.stream(), self._device.event()
        try:
            if not self._execution.set_optimization_profile_async(index, stream):
                raise self._failure(f"no switch to profile {index} of its plan")
            self._device.record(changed, stream)
            self._device.synchronise(changed)
        finally:
            self._device.discard(stream, changed)

    @property
    def activation_bytes(self) -> int:
        return self._activation_bytes

    def use_activation(self, memory: Memory) -> None:
        self._execution.set_device_memory(memory.address, memory.size)

    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        for name, address in addresses.items():
            if not self._execution.set_tensor_address(name, address):
                raise self._failure(f"{name} cannot lie at {address:#x}")
        if not self._execution.execute_async_v3(stream):
            raise self._failure(f"{self._library.backend} failed")

    def _failure(self, what: str) -> EngineError:
        """The error to raise, with TensorRT's own reason. Raises DeviceLost where that is behind it."""
        self._device.check()
        return EngineError(f"{self._graph}: {what}: {self._loaded.logger.last}")

    def capturable(self, stream: Stream) -> bool:
        # TensorRT has no such question; it refuses when the capture is tried, and that falls back.
        return not self._library.user_allocation or bool(self._execution.is_stream_capturable(stream))

    def warmed_up(self) -> None:
        self._loaded.keep_kernels()

    def close(self) -> None:
        with self._device.lock:
            del self._execution
