"""One build of a plan by TensorRT: from a request to a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import ProfileEntry
from lsx.core.atomic_files import write_whole
from lsx.engines.gpu_info import Gpu
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.layer_table import LayerTable, layers_in_log, told_kinds
from lsx.engines.tensorrt.libraries import Library
from lsx.engines.tensorrt.network import collecting_logger, network_from_graph, progress_monitor, set_shapes, with_log
from lsx.errors import BuildError

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["BuildJob", "PlanRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """All that one plan is built from, and what follows from it, computed once."""

    bundle: Bundle
    graph: str
    library: Library
    target: str
    gpu: Gpu | None
    """The GPU at hand, where the plan is made on and for it."""
    profiles: tuple[ProfileEntry, ...]
    options: BuildOptions
    onnx: tuple[str, ...]
    """SHA-256 of the graph and of the files with its weights."""
    name: str
    """The plan's file."""
    key: str
    """SHA-256 of everything that the plan depends on."""


class BuildJob:
    """One build. TensorRT works on a thread of its own, so that the main one can be interrupted."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._cancelled, self._finished = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._share = 0.0
        self.table = LayerTable((), {})
        """The plan's layers, when it is built."""

    def run(self, path: Path, report: Callable[[float], object]) -> int:
        """Build into the file `path`; returns the process's peak memory in bytes. Raises BuildError."""
        thread = threading.Thread(target=self._work, args=(path,), name="lsx-build", daemon=True)
        thread.start()
        peak = _resident_bytes()
        try:
            # Not Thread.join: interrupted, it takes the thread for ended (CPython issue 89437).
            while not self._finished.wait(0.1):
                peak = max(peak, _resident_bytes())
                report(self._share)
        except BaseException:
            self._cancelled.set()  # the monitor says so to TensorRT at its next step
            self._finished.wait()
            raise
        if self._error is not None:
            raise self._error
        return peak

    def _work(self, path: Path) -> None:
        try:
            self._build(path)
        except BaseException as error:
            self._error = error
        finally:
            self._finished.set()

    def _build(self, path: Path) -> None:
        if TYPE_CHECKING:
            import tensorrt_rtx_bindings as trt
        else:
            trt = self._request.library.module()
        request = self._request
        library, options, bundle, graph = request.library, request.options, request.bundle, request.graph
        logger = collecting_logger(trt)
        builder = trt.Builder(logger)
        network, parser = network_from_graph(library, builder, logger, bundle, graph)
        kinds = told_kinds(network)
        config = self._configured(builder)
        library.configure_target(config, request.target)
        set_shapes(library, builder, network, config, bundle.graph(graph), request.profiles)
        cache = _read_timing_cache(config, options.timing_cache)
        plan: trt.IHostMemory | None = builder.build_serialized_network(network, config)
        if plan is None:
            if self._cancelled.is_set():
                raise KeyboardInterrupt
            failed = BuildError(
                f"{graph}: {library.backend} {library.version} could not build it for {request.target}: "
                f"{logger.last}. Try --opt-level 2, a larger --workspace, or another --target"
            )
            raise with_log(failed, logger)
        del parser
        self.table = LayerTable(layers_in_log(logger.layers), kinds)
        with path.open("wb") as file:
            file.write(memoryview(plan))  # type: ignore[arg-type]  # the stubs do not know that it is a buffer
        if cache is not None and options.timing_cache is not None:
            write_whole(options.timing_cache, bytes(memoryview(cache.serialize())))  # type: ignore[arg-type]  # as above

    def _configured(self, builder: trt.Builder) -> trt.IBuilderConfig:
        """The builder's settings, but for the target and the lengths."""
        library, options = self._request.library, self._request.options
        if TYPE_CHECKING:
            import tensorrt_rtx_bindings as trt
        else:
            trt = library.module()
        config = builder.create_builder_config()
        config.builder_optimization_level = options.opt_level
        config.progress_monitor = progress_monitor(trt, self._cancelled, self._advance)
        if options.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
        if options.aux_streams is not None:
            config.max_aux_streams = options.aux_streams
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if library.user_allocation:
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        return config

    def _advance(self, share: float) -> None:
        self._share = share


def _read_timing_cache(config: trt.IBuilderConfig, path: Path | None) -> trt.ITimingCache | None:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise BuildError(f"{path}: not a timing cache of this library and GPU. Delete it, or give another file")
    return cache


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0
