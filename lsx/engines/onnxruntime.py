"""The ONNX Runtime backend: the CPU provider everywhere, the CUDA provider where onnxruntime-gpu is."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsx.core.tensors import TensorSpec
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.engines.gpu_info import first_gpu
from lsx.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from lsx.engines.registry import Backend, EngineOptions, reasons_of
from lsx.errors import BackendUnavailable, EngineError, UsageError

if TYPE_CHECKING:
    from lsx.bundle.bundle import Bundle
    from lsx.bundle.manifest import FileEntry, Form

__all__ = ["OnnxOptions", "OnnxRuntimeBackend", "OnnxRuntimeEngine", "cpu_engine", "engine_from_onnx"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_AXES = {"b": 2, "F": 16, "n": 1}
"""Lengths that a run uses of the axes that vary: batch, frames, segments."""


class OnnxRuntimeEngine(Engine):
    """A graph in an ONNX Runtime session. Returned arrays belong to the caller; `infer` is thread-safe.

    A session is made for one length of each axis that varies: with all shapes known ONNX Runtime loads the U-Net five
    times as fast, and runs it faster. Other lengths are served too; the session of the latest ones is kept.
    """

    def __init__(
        self,
        graph: str,
        load: Callable[[dict[str, int]], Any],
        axes: dict[str, int],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        super().__init__(graph, inputs, outputs)
        self._names = [spec.name for spec in outputs]
        self._varying = [
            (axis, spec.name, position)
            for spec in inputs
            for position, axis in enumerate(spec.shape)
            if isinstance(axis, str)
        ]
        self._load = load
        self._lock = threading.Lock()
        self._axes = {axis: axes[axis] for axis, _, _ in self._varying}
        self._session: Any = load(self._axes)

    @property
    def description(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}, {self._session.get_providers()[0]}"

    def _session_for(self, feed_dict: FeedDict) -> Any:
        axes = {axis: feed_dict[name].shape[position] for axis, name, position in self._varying}
        with self._lock:
            if self._session is None:
                raise EngineError(f"{self.graph}: the engine is closed")
            if axes != self._axes:
                self._session, self._axes = None, {}  # two at once would hold the weights twice
                self._session, self._axes = self._load(axes), axes
            return self._session

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        session = self._session_for(feed_dict)
        try:
            results = session.run(self._names, dict(feed_dict))
        except Exception as error:  # ONNX Runtime's errors share no importable class
            raise EngineError(f"{self.graph}: ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(self._names, results, strict=True))

    def end_profiling(self) -> Path:
        """Stop the profile that the session was loaded for, and the file that holds it."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        with self._lock:
            self._session = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxOptions:
    """How sessions are made."""

    provider: str = "cpu"
    """cpu or cuda."""
    threads: int | None = None
    """Threads of the CPU provider, default $LSX_THREADS, else all cores."""
    optimise: bool = True
    """False keeps memory down and start-up short, for a graph that runs once."""
    profile: Path | None = None
    """What the name of ONNX Runtime's profile begins with, see `OnnxRuntimeEngine.end_profiling`."""


def engine_from_onnx(
    path: Path,
    graph: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    options: OnnxOptions | None = None,
    *,
    axes: dict[str, int] | None = None,
) -> OnnxRuntimeEngine:
    """Load an ONNX file.

    axes : lengths of the axes that vary to load for first, by default 2 for the batch `b`, 16 frames, 1 segment.

    Raises BackendUnavailable when the provider is not really used, EngineError when the graph does not load.
    """
    load = session_loader(path, graph, [*inputs, *outputs], options or OnnxOptions())
    return OnnxRuntimeEngine(graph, load, _AXES | (axes or {}), inputs, outputs)


def session_loader(
    path: Path, graph: str, tensors: Sequence[TensorSpec], options: OnnxOptions
) -> Callable[[dict[str, int]], Any]:
    """What makes a session of an ONNX file for given lengths of the axes that vary. Errors as above."""
    provider = _offered_provider(options.provider)
    if options.provider == "cpu" and any(spec.dtype == "bfloat16" for spec in tensors):
        raise EngineError(
            f"{graph} is bf16, for which ONNX Runtime has no CPU kernels. "
            "Use a bundle of --precision fp32 or fp16 on a CPU"
        )

    def load(lengths: dict[str, int]) -> Any:
        settings = _session_options(options, lengths)
        if options.provider == "cuda":
            return _cuda_session(path, graph, settings)
        _share_arena()
        settings.add_session_config_entry("session.use_env_allocators", "1")
        return _session(path, settings, provider)

    return load


def _offered_provider(name: str) -> str:
    """ONNX Runtime's name of a provider. Raises UsageError, BackendUnavailable where this ONNX Runtime lacks it."""
    import onnxruntime

    if name not in _PROVIDERS:
        raise UsageError(f"provider is {name}; choose one of {', '.join(_PROVIDERS)}")
    provider = _PROVIDERS[name]
    if provider not in onnxruntime.get_available_providers():
        raise BackendUnavailable(
            f"this onnxruntime has no {provider}. Install it: pip uninstall onnxruntime, then pip install 'lsx[gpu]'"
        )
    return provider


def _session_options(options: OnnxOptions, lengths: dict[str, int]) -> Any:
    """ONNX Runtime's own, for axes of these lengths."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.enable_mem_pattern = False  # the arena alone is as fast, and takes less
    settings.intra_op_num_threads = options.threads or default_threads()
    if options.profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(options.profile)
    if not options.optimise:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for axis, length in lengths.items():
        settings.add_free_dimension_override_by_name(axis, length)
    return settings


def _session(path: Path, options: Any, provider: str) -> Any:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime's errors share no importable class
        raise EngineError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU in silence
        raise BackendUnavailable(
            f"ONNX Runtime offers {provider} but did not use it: CUDA or cuDNN is missing or too old. See: lsx doctor"
        )
    return session


def _cuda_session(path: Path, graph: str, options: Any) -> Any:
    """A session whose heavy nodes are all the CUDA provider's. Raises BackendUnavailable where one is not."""
    import onnxruntime

    upgrade = "Upgrade it: pip install -U 'onnxruntime-gpu>=1.25'"
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        raise BackendUnavailable(f"onnxruntime-gpu {onnxruntime.__version__} is older than 1.25. {upgrade}")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints what it does not find; what follows says it better
            onnxruntime.preload_dlls()  # CUDA and cuDNN of pip's wheels, which the loader does not see
    provider = _PROVIDERS["cuda"]
    session = _session(path, options, provider)
    elsewhere = heavy_nodes_elsewhere(session.get_provider_graph_assignment_info(), provider)
    if elsewhere:
        raise BackendUnavailable(
            f"{graph}: onnxruntime-gpu {onnxruntime.__version__} has no CUDA kernel for {', '.join(elsewhere)} "
            f"and would compute that on the CPU. {upgrade}"
        )
    return session


_LIGHT = {
    "Cast",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Range",
    "Reshape",
}
_LIGHT |= {"Shape", "Size", "Slice", "Split", "Squeeze", "Unsqueeze"}
"""Operators that ONNX Runtime leaves on the CPU for good: they make shapes, or cost nothing."""


def heavy_nodes_elsewhere(assignment: Iterable[Any], provider: str) -> list[str]:
    """What a session computes on another provider than `provider`: `Attention (3)`, by operator.

    assignment : `InferenceSession.get_provider_graph_assignment_info()`.
    """
    counted = Counter(
        node.op_type
        for part in assignment
        if part.ep_name != provider
        for node in part.get_nodes()
        if node.op_type not in _LIGHT
    )
    return [f"{operator} ({count})" for operator, count in sorted(counted.items())]


@cache
def _share_arena() -> None:
    """One arena for all sessions of the process, growing by what is asked for: they run in turns, so their memory may
    be the same. An arena each would hold the highest need of every graph at once, rounded up to powers of two.
    """
    import onnxruntime

    cpu = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    extend_as_requested = 1
    config = onnxruntime.OrtArenaCfg(0, extend_as_requested, -1, -1)
    onnxruntime.create_and_register_allocator(cpu, config)


def default_threads() -> int:
    """Threads of a CPU engine: $LSX_THREADS, or 0 for all cores. Raises UsageError."""
    text = os.environ.get("LSX_THREADS", "0")
    if not text.isdigit():
        raise UsageError(f"LSX_THREADS is {text}; give a whole number of threads, or 0 for all cores")
    return int(text)


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime."""

    name = "onnxruntime"

    def availability(self) -> tuple[bool, str]:
        try:
            import onnxruntime
        except ImportError as error:
            return False, f"{error}"
        providers = [n.removesuffix("ExecutionProvider") for n in onnxruntime.get_available_providers()]
        return True, f"{onnxruntime.__version__}, providers {', '.join(providers)}"

    def check(self, bundle: Bundle, options: EngineOptions | None = None) -> None:
        super().check(bundle, options)
        provider = "cpu" if options is None else options.provider
        driver = (first_gpu,) if provider == "cuda" else ()
        self.refuse(bundle, reasons_of(lambda: _offered_provider(provider), *driver))

    def files(self, bundle: Bundle) -> list[FileEntry]:
        forms: tuple[Form, ...] = ("onnxruntime", "onnxruntime_cuda")
        return [file for graph in bundle.manifest.graphs for form in forms for file in bundle.files(graph, form)]

    def engine(self, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
        self.check(bundle, options)
        model = bundle.model
        frames = model.vae_frames if options.provider == "cuda" else model.host_vae_frames
        axes = {"b": options.guidance_batch, "F": frames}
        if options.provider == "cpu":
            return cpu_engine(bundle, graph, axes, threads=options.threads)
        path, inputs, outputs = _loaded(bundle, graph, "onnxruntime_cuda")
        load = session_loader(path, graph, [*inputs, *outputs], OnnxOptions(provider="cuda"))
        from lsx.engines.cuda_device import shared_device

        return OnnxRuntimeCudaEngine(graph, load, _AXES | axes, inputs, outputs, shared_device())


def cpu_engine(
    bundle: Bundle,
    graph: str,
    axes: Mapping[str, int],
    *,
    threads: int | None = None,
    profile: Path | None = None,
) -> OnnxRuntimeEngine:
    """A bundle's graph on the CPU provider, its files hashed first. Parameters and errors as in `engine_from_onnx`."""
    path, inputs, outputs = _loaded(bundle, graph, "onnxruntime")
    return engine_from_onnx(
        path, graph, inputs, outputs, OnnxOptions(threads=threads, profile=profile), axes=dict(axes)
    )


def _loaded(bundle: Bundle, graph: str, form: Form) -> tuple[Path, list[TensorSpec], list[TensorSpec]]:
    """The file of a graph in a form, hashed, and what goes in and comes out. Raises IntegrityError."""
    entry = bundle.graph(graph)
    files = bundle.files(graph, form)
    bundle.verify(files)
    inputs, outputs = ([tensor.spec() for tensor in tensors] for tensors in (entry.inputs, entry.outputs))
    return bundle.path / files[0].path, inputs, outputs


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
