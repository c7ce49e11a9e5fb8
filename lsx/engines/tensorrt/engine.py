"""A plan, loaded and run by TensorRT or TensorRT-RTX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsx.bundle import Bundle
from lsx.engines.device import Device, DeviceEngine, Memory, Stream
from lsx.engines.gpu import driver_version, gpu_name
from lsx.engines.tensorrt.libraries import Library
from lsx.engines.tensorrt.network import collecting_logger
from lsx.engines.tensorrt.plans import engine_from_plan, profile_for
from lsx.errors import EngineError, OutOfDeviceMemory, StaleEngine
from lsx.files import write_whole
from lsx.manifest import PlanEntry
from lsx.specs import TensorSpec

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["TensorRtEngine", "kernel_cache_file"]


def kernel_cache_file(library: Library, plan: PlanEntry) -> Path:
    """Where TensorRT-RTX's compiled kernels of a plan are kept: the user's cache folder, by GPU and driver."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{library.version}-{gpu_name()}-{driver_version()}".replace(" ", "_").replace("/", "_")
    return base / "lsx" / "kernels" / name / f"{plan.graph}-{plan.key[:16]}.bin"


class TensorRtEngine(DeviceEngine):
    """An execution context of a plan. Its activation memory is the caller's (USER_MANAGED); one thread at a time."""

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
        self._library, self._bundle, self._plan = library, bundle, plan
        self._closed = False
        if TYPE_CHECKING:
            import tensorrt_rtx_bindings as trt
        else:
            trt = library.module()
        device.enter()
        path = bundle.path / plan.file.path
        self._logger = collecting_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        if "version_compatible" in plan.options:
            if not trust_code:
                raise StaleEngine(
                    f"{path} is version compatible: it carries code that would be run. If you trust this bundle, say "
                    "so with trust_code=True; or build it without --version-compatible"
                )
            self._runtime.engine_host_code_allowed = True
        free = device.free_bytes()
        if plan.file.size > free:
            raise OutOfDeviceMemory(
                f"{path} needs {plan.file.size / 2**20:.0f} MiB of GPU memory for its weights, and {free / 2**20:.0f} "
                "MiB are free. Close other programs on this GPU"
            )
        self._cache: trt.IRuntimeCache | None = None
        self._config: trt.IRuntimeConfig | None = None
        self._cache_fits = False
        with device.lock:
            self._engine = engine_from_plan(self._runtime, self._logger, bundle, plan)
            context = self._context(trt)
        if context is None:
            raise EngineError(f"{path}: no execution context could be made: {self._logger.last}")
        self._execution: trt.IExecutionContext = context
        self._check_io(path)
        self._profile_stream = device.stream()
        self._changed = device.event()

    def _context(self, trt: Any) -> trt.IExecutionContext | None:
        if not self._library.user_allocation:
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            return self._engine.create_execution_context(strategy)
        # TensorRT-RTX compiles kernels for this GPU when first run; what it compiled is kept for the next process.
        self._config = config = self._engine.create_runtime_config()  # it has to outlive its context
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._cache = config.create_runtime_cache()
        file = kernel_cache_file(self._library, self._plan)
        self._cache_fits = file.is_file() and self._cache.deserialize(file.read_bytes())
        config.set_runtime_cache(self._cache)
        # The kernels for these very shapes before the first run, not behind it: a captured graph keeps what it saw.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return self._engine.create_execution_context(config)

    def _check_io(self, path: Path) -> None:
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        wanted = {*self.inputs, *self.outputs}
        if names != wanted:
            raise StaleEngine(
                f"{path} has the tensors {', '.join(sorted(names))}, and its graph {', '.join(sorted(wanted))}. "
                f"Build it again: lsx build {self._bundle.path} --backend {self._library.backend} --force"
            )

    @property
    def description(self) -> str:
        return f"{self._library.backend} {self._library.version}, {self._plan.target} plan on {gpu_name()}"

    def prepare(self, axes: Mapping[str, int]) -> int:
        index = profile_for(self._plan, axes, self._bundle)
        context = self._execution
        self.device.enter()
        if index != context.active_optimization_profile:
            if not context.set_optimization_profile_async(index, self._profile_stream):
                raise EngineError(f"{self.graph}: no switch to profile {index} of its plan: {self._logger.last}")
            self.device.record(self._changed, self._profile_stream)
            self.device.synchronise(self._changed)
        for name, spec in self.inputs.items():
            shape = list(spec.shape_at(axes))
            if any(isinstance(n, str) for n in spec.shape) and not context.set_input_shape(name, shape):
                raise EngineError(f"{self.graph}: {name} cannot be {shape}: {self._logger.last}")
        return int(context.update_device_memory_size_for_shapes())

    def use_activation(self, memory: Memory | None) -> None:
        if memory is not None:
            self._execution.set_device_memory(memory.address, memory.size)

    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        for name, address in addresses.items():
            if not self._execution.set_tensor_address(name, address):
                raise EngineError(f"{self.graph}: {name} cannot lie at {address:#x}: {self._logger.last}")
        if not self._execution.execute_async_v3(stream):
            raise EngineError(f"{self.graph}: {self._library.backend} failed: {self._logger.last}")

    def capturable(self, stream: Stream) -> bool:
        # TensorRT has no such question; it refuses when the capture is tried, and that falls back.
        return not self._library.user_allocation or bool(self._execution.is_stream_capturable(stream))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.device.enter()
        self.release_buffers()
        self.device.discard(self._profile_stream, self._changed)
        with self.device.lock:
            # In this order: the cache outlives its contexts, the engine its cache, the runtime its engine.
            del self._execution
            self._save_kernels()
            self._cache = self._config = None
            del self._engine, self._runtime

    def warmed_up(self) -> None:
        # A process that is killed has its kernels kept, too: compiling them again takes seconds a graph.
        with self.device.lock:
            self._save_kernels()

    def _save_kernels(self) -> None:
        """Keep what was compiled for this GPU, where it is more than what is kept."""
        if self._cache is None:
            return
        file = kernel_cache_file(self._library, self._plan)
        held: trt.IHostMemory | None = self._cache.serialize()
        if held is None:
            return
        content = bytes(memoryview(held))  # type: ignore[arg-type]  # a buffer, unknown to the stubs
        if self._cache_fits and file.is_file() and file.stat().st_size >= len(content):
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, content)
        except OSError:  # a cache that cannot be kept costs time, and nothing else
            return
