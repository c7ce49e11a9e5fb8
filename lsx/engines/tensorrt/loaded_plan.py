"""Plans on the GPU: deserialised once a process, however many engines run them, with TensorRT-RTX's kernels kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import PlanEntry
from lsx.core.atomic_files import write_whole
from lsx.engines.device import Device
from lsx.engines.gpu_info import first_gpu
from lsx.engines.tensorrt.libraries import Library
from lsx.engines.tensorrt.network import collecting_logger
from lsx.engines.tensorrt.plans import engine_from_plan
from lsx.errors import EngineError, OutOfDeviceMemory, StaleEngine

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["LoadedPlan", "kernel_cache_file"]


def kernel_cache_file(library: Library, plan: PlanEntry) -> Path:
    """Path at which TensorRT-RTX's compiled kernels of a plan are kept: the user's cache folder, by GPU and driver."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    gpu = first_gpu()
    name = f"{library.version}-{gpu.name}-{gpu.driver}".replace(" ", "_").replace("/", "_")
    return base / "lsx" / "kernels" / name / f"{plan.graph}-{plan.key[:16]}.bin"


class LoadedPlan:
    """A plan's weights and code on the GPU. Take it with `taken`, and give it back with `release`."""

    _shared: dict[tuple[str, str], LoadedPlan] = {}  # noqa: RUF012  (the process's, under Device.lock)

    @classmethod
    def taken(
        cls, library: Library, bundle: Bundle, plan: PlanEntry, device: Device, *, trust_code: bool
    ) -> LoadedPlan:
        """The plan, loaded where no engine of this process has it yet.

        Raises StaleEngine, OutOfDeviceMemory, EngineError.
        """
        path = bundle.path / plan.file.path
        if "version_compatible" in plan.options and not trust_code:
            raise StaleEngine(
                f"{path} is version compatible: it carries code that would be run. If you trust this bundle, say "
                "so with trust_code=True; or build it without --version-compatible"
            )
        key = (library.backend, plan.file.sha256)
        with device.lock:
            plan_in_use = cls._shared.get(key)
            if plan_in_use is None:
                plan_in_use = cls._shared[key] = cls(library, bundle, plan, device)
            plan_in_use._users += 1
            return plan_in_use

    def __init__(self, library: Library, bundle: Bundle, plan: PlanEntry, device: Device) -> None:
        if TYPE_CHECKING:
            import tensorrt_rtx_bindings as trt
        else:
            trt = library.module()
        self._library, self._plan, self._device = library, plan, device
        self._users = 0
        self._key = (library.backend, plan.file.sha256)
        path = bundle.path / plan.file.path
        free = device.free_bytes()
        if plan.file.size > free:
            raise OutOfDeviceMemory(
                f"{path} needs {plan.file.size / 2**20:.0f} MiB of GPU memory for its weights, and {free / 2**20:.0f} "
                "MiB are free. Close other programs on this GPU"
            )
        self._path = path
        self.logger = collecting_logger(trt)
        self._runtime = trt.Runtime(self.logger)
        if "version_compatible" in plan.options:
            self._runtime.engine_host_code_allowed = True
        self.engine = engine_from_plan(self._runtime, self.logger, bundle, plan)
        self._cache: trt.IRuntimeCache | None = None
        self._config: trt.IRuntimeConfig | None = None
        self._cache_fits = False
        if library.user_allocation:
            self._configure(trt)

    def _configure(self, trt: Any) -> None:
        """TensorRT-RTX compiles kernels for this GPU when first run; what it compiled is kept for the next process."""
        self._config = config = self.engine.create_runtime_config()  # it has to outlive its contexts
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._cache = config.create_runtime_cache()
        file = kernel_cache_file(self._library, self._plan)
        self._cache_fits = file.is_file() and self._cache.deserialize(file.read_bytes())
        config.set_runtime_cache(self._cache)
        # The kernels for these very shapes before the first run, not behind it: a captured graph keeps what it saw.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER

    def new_context(self) -> trt.IExecutionContext:
        """An execution context whose activation memory is its user's. Raises EngineError."""
        if TYPE_CHECKING:
            import tensorrt_rtx_bindings as trt
        else:
            trt = self._library.module()
        context: trt.IExecutionContext | None
        with self._device.lock:
            if self._config is None:
                strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
                context = self.engine.create_execution_context(strategy)
            else:
                context = self.engine.create_execution_context(self._config)
        if context is None:
            raise self._no_context()
        return context

    def _no_context(self) -> EngineError:
        self._device.check()
        return EngineError(f"{self._path}: no execution context could be made: {self.logger.last}")

    def release(self) -> None:
        """Give it back; the last to do so frees it. Its contexts are gone before."""
        with self._device.lock:
            self._users -= 1
            if self._users:
                return
            self._shared.pop(self._key, None)
            # In this order: the cache outlives its contexts, the engine its cache, the runtime its engine.
            self._save_kernels()
            self._cache = self._config = None
            del self.engine, self._runtime

    def keep_kernels(self) -> None:
        """Keep what was compiled so far. A process that is killed later has it kept, too."""
        with self._device.lock:
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
        self._cache_fits = True
