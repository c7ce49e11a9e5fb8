"""Stage 1: versions, and each call of CUDA and TensorRT that lsx makes, tried or at least looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lsx.engines.cuda_device import RUNTIME_CALLS, CudaDevice
from lsx.engines.gpu_info import driver_runtime, first_gpu
from lsx.engines.tensorrt.libraries import LIBRARIES, Library
from lsx.errors import BackendUnavailable, OutOfDeviceMemory
from lsx.reporting.system_info import backends, system_info
from scripts.gpu.checks import Checks, Skipped
from scripts.gpu.stage import Settings

__all__ = ["TENSORRT_NAMES", "probe_cuda", "run"]

_BOTH = (
    "Builder.build_serialized_network",
    "Builder.create_builder_config",
    "Builder.create_network",
    "Builder.create_optimization_profile",
    "EngineInspector.get_engine_information",
    "ExecutionContextAllocationStrategy.USER_MANAGED",
    "IAttentionInputLayer.attention",
    "IBuilderConfig.add_optimization_profile",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.create_timing_cache",
    "IBuilderConfig.hardware_compatibility_level",
    "IBuilderConfig.max_aux_streams",
    "IBuilderConfig.profiling_verbosity",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_flag",
    "IBuilderConfig.set_memory_pool_limit",
    "IBuilderConfig.set_timing_cache",
    "ICudaEngine.create_engine_inspector",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.get_device_memory_size_for_profile_v2",
    "ICudaEngine.get_tensor_name",
    "ICudaEngine.get_tensor_shape",
    "ICudaEngine.num_io_tensors",
    "ICudaEngine.num_optimization_profiles",
    "IExecutionContext.active_optimization_profile",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_device_memory",
    "IExecutionContext.set_input_shape",
    "IExecutionContext.set_optimization_profile_async",
    "IExecutionContext.set_tensor_address",
    "IExecutionContext.update_device_memory_size_for_shapes",
    "ILogger",
    "IProgressMonitor",
    "LayerInformationFormat.JSON",
    "OnnxParser.parse_from_file",
    "Runtime.deserialize_cuda_engine",
    "Runtime.engine_host_code_allowed",
)
TENSORRT_NAMES: dict[str, tuple[str, ...]] = {
    "tensorrt": _BOTH,
    "tensorrt-rtx": (
        *_BOTH,
        "BuilderFlag.REQUIRE_USER_ALLOCATION",
        "ComputeCapability.CURRENT",
        "DynamicShapesKernelSpecializationStrategy.EAGER",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "ICudaEngine.create_runtime_config",
        "IExecutionContext.is_stream_capturable",
        "IRuntimeCache.deserialize",
        "IRuntimeCache.serialize",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IRuntimeConfig.set_execution_context_allocation_strategy",
        "IRuntimeConfig.set_runtime_cache",
    ),
}
"""Names of each library that lsx uses, as Class.attribute."""


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 1."""
    checks.run("versions", lambda: dict(system_info(settings.folder)))
    if checks.run("GPU", lambda: first_gpu().description) is None:
        return
    checks.run("backends", lambda: {name: detail for name, _, detail in backends()})
    probe_cuda(checks, driver_runtime())
    for library in LIBRARIES.values():
        checks.run(library.backend, _names_of, library)


class _Recording:
    """A runtime whose answers are counted by function."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.answers: dict[str, list[str]] = {name: [] for name in RUNTIME_CALLS}

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._runtime, name)
        if name not in RUNTIME_CALLS:
            return real

        def call(*arguments: Any) -> Any:
            answer = real(*arguments)
            self.answers[name].append(answer[0].name)
            return answer

        return call


def probe_cuda(checks: Checks, runtime: Any) -> None:
    """Make a device do all that it can, and look at the answer of each function of the runtime API on the way."""
    recording = _Recording(runtime)
    checks.run("a CUDA device at work", lambda: _work(recording))
    for name in RUNTIME_CALLS:
        checks.run(name, _answered, recording.answers[name])


def _answered(answers: list[str]) -> str:
    if "cudaSuccess" not in answers:
        raise RuntimeError(f"never succeeded: {', '.join(sorted(set(answers))) or 'not called'}")
    return f"{answers.count('cudaSuccess')} of {len(answers)} times cudaSuccess"


def _work(recording: Any) -> str:
    status, _ = recording.cudaGetDeviceCount()
    recording.cudaGetErrorString(status)
    recording.cudaDriverGetVersion()
    recording.cudaGetDeviceProperties(0)
    device = CudaDevice(recording)
    memory, pinned = device.allocate(4096), device.allocate_pinned(4096)
    stream, other = device.stream(), device.stream()
    begun, done = device.event(timed=True), device.event(timed=True)
    device.record(begun, stream)
    device.copy(memory.address, pinned.address, 4096, stream)
    device.record(done, stream)
    device.wait(done, other)
    graph = device.capture(other, lambda s: device.copy_rows(pinned.address, 512, memory.address, 512, 256, 8, s))
    graph.launch(other)
    device.record(done, other)
    device.synchronise(done)
    device.elapsed(begun, done)
    graph.close()
    try:
        device.allocate(2**60)
    except OutOfDeviceMemory as error:
        told = str(error)
    else:
        raise RuntimeError("an exbibyte was given")
    device.check()
    for block in (memory, pinned):
        device.free(block)
    device.discard(stream, other, begun, done)
    device.close()
    return told


def _names_of(library: Library) -> str:
    """The library's version. Fails with the names that it lacks."""
    try:
        module = library.module()
    except BackendUnavailable as error:
        raise Skipped(str(error)) from error
    missing = [name for name in TENSORRT_NAMES[library.backend] if not _has(module, name)]
    if missing:
        raise RuntimeError(f"{library.version} has no {', '.join(missing)}")
    return f"{library.version} at {Path(str(module.__file__)).parent}"


def _has(module: Any, name: str) -> bool:
    place = module
    for part in name.split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True
