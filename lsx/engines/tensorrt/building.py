"""ONNX to plan: one graph at a time, with progress, cancellable, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import FileEntry, GpuEntry, GraphEntry, PlanEntry, ProfileEntry
from lsx.core.atomic_files import process_lives, sha256_of, write_whole
from lsx.core.model_spec import ModelSpec
from lsx.engines.gpu_info import Gpu, first_gpu
from lsx.engines.tensorrt.build_job import BuildJob, PlanRequest
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.layer_table import LayerTable
from lsx.engines.tensorrt.libraries import Library, has_fp8, library_named
from lsx.errors import OutputError, UsageError

__all__ = ["PLANNED", "BuildReport", "build_plans", "profiles_of"]

PLANNED = ("audio_encoder", "vae_encoder", "unet", "unet_shallow", "step", "vae_decoder")
"""The graphs that have plans. The face graphs run on the CPU, beside the loop."""

Progress = Callable[[str, float], None]
"""Called with what is being built and the share of it that is done, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did."""

    built: tuple[PlanEntry, ...]
    kept: tuple[PlanEntry, ...]
    """Plans that were there already, and fit."""


def profiles_of(entry: GraphEntry, model: ModelSpec, options: BuildOptions) -> tuple[ProfileEntry, ...]:
    """The lengths of the varying axes that a plan is built for: (lowest, best, highest) of each, by profile."""
    axes = {n for tensor in (*entry.inputs, *entry.outputs) for n in tensor.shape if isinstance(n, str)}
    if "b" in axes:
        return tuple({"b": (b, b, b)} for b in options.batches)
    if "F" in axes:
        return ({"F": (model.vae_frames, model.vae_frames, model.vae_frames)},)
    return ({"n": (1, 1, 1)},) if "n" in axes else ({},)  # the runtime encodes a segment when a frame needs it


def _request(bundle: Bundle, graph: str, library: Library, target: str, options: BuildOptions) -> PlanRequest:
    """The plan that these make: its name, and the key by which it is known again."""
    gpu = first_gpu() if library.bound(target) else None
    entry = bundle.graph(graph)
    profiles = profiles_of(entry, bundle.model, options)
    onnx = tuple(file.sha256 for file in bundle.files(graph))
    content: dict[str, object] = {
        "onnx": onnx,
        "profiles": profiles,
        "options": options.as_text(),
        "library": [library.backend, library.version],
        "target": target,
    }
    if gpu is not None:
        content["gpu"] = [gpu.name, gpu.multiprocessors]
    where = target if gpu is None else f"{target}-{_as_name(gpu.name)}"
    return PlanRequest(
        bundle=bundle,
        graph=graph,
        library=library,
        target=target,
        gpu=gpu,
        profiles=profiles,
        options=options,
        onnx=onnx,
        name=f"{graph}.{entry.precision}.{library.backend}.{where}.plan",
        key=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
    )


def build_plans(
    bundle: Bundle,
    backend: str,
    *,
    targets: tuple[str, ...] = (),
    graphs: tuple[str, ...] = PLANNED,
    options: BuildOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the plans of `graphs` for `targets` into `bundle`, one after the other, and enter each in its manifest.

    A plan that is there and was built from the same graph, with the same options and library, for the same target is
    kept, unless `force`. What is built is in the bundle when the next one starts; an interrupted one leaves nothing.

    Raises UsageError, BackendUnavailable, BuildError, IntegrityError, OutputError.
    """
    library, options = library_named(backend), (options or BuildOptions()).of_bundle(bundle)
    chosen = _checked_targets(bundle, library, targets, graphs, options)
    requests = [_request(bundle, graph, library, target, options) for target in chosen for graph in graphs]
    built, reused = [], []
    for request in requests:
        there = None if force else _intact_plan(bundle, request.key)
        if there is not None:
            reused.append(there)
            continue
        bundle.verify(bundle.files(request.graph))
        entry = _built(request, progress)
        bundle.add_plan(entry)
        built.append(entry)
    return BuildReport(built=tuple(built), kept=tuple(reused))


def _checked_targets(
    bundle: Bundle, library: Library, targets: tuple[str, ...], graphs: tuple[str, ...], options: BuildOptions
) -> tuple[str, ...]:
    """The targets to build for. Raises UsageError, BackendUnavailable for what cannot be built."""
    unknown = [name for name in graphs if name not in PLANNED]
    if unknown:
        raise UsageError(f"--graphs {', '.join(unknown)}: plans are made of {', '.join(PLANNED)}")
    if options.hardware_compatible and library.user_allocation:
        raise UsageError("--hardware-compatible is tensorrt's; with tensorrt-rtx build --target portable, the default")
    library.check_builds_here()
    if options.timing_cache is not None:
        if library.user_allocation:
            raise UsageError(
                "--timing-cache is tensorrt's: tensorrt-rtx times nothing as it builds. The kernels that it compiles "
                "when first run are kept without being asked"
            )
        first_gpu()  # tactics are timed on a GPU
    fp8 = [graph for graph in graphs if bundle.graph(graph).precision == "fp8"]
    chosen = library.targets(targets or (library.fp8_targets if fp8 else ()))
    for target in chosen:
        if fp8 and not has_fp8(target):
            raise UsageError(
                f"{fp8[0]} is fp8, which GPUs have from SM 8.9 on; {target} is or includes older ones. Build for "
                "--target sm89 or sm120, or export int8"
            )
    return chosen


def _intact_plan(bundle: Bundle, key: str) -> PlanEntry | None:
    for plan in bundle.manifest.plans:
        path = bundle.path / plan.file.path
        if plan.key == key and path.is_file() and path.stat().st_size == plan.file.size:
            return plan if sha256_of(path) == plan.file.sha256 else None
    return None


def _built(request: PlanRequest, progress: Progress | None) -> PlanEntry:
    """Build into a temporary file, rename it, and keep its layers beside it."""
    name, folder = request.name, request.bundle.path / "plans"
    started = time.perf_counter()
    try:
        folder.mkdir(exist_ok=True)
        _remove_abandoned(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}-{os.getpid()}-", delete=False) as file:
            temporary = Path(file.name)
        try:
            label = f"{request.graph} for {request.target}"
            job = BuildJob(request)
            peak = job.run(temporary, lambda share: progress and progress(label, share))
            temporary.chmod(0o644)
            temporary.replace(folder / name)
            layers = _write_table(job.table, folder / f"{name.removesuffix('.plan')}.layers.json.gz")
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    path = folder / name
    return PlanEntry(
        graph=request.graph,
        precision=request.bundle.graph(request.graph).precision,
        file=_entry_of(path),
        layers=layers,
        backend=request.library.backend,
        library_version=request.library.version,
        target=request.target,
        key=request.key,
        onnx=request.onnx,
        profiles=request.profiles,
        options=request.options.as_text(),
        gpu=None if request.gpu is None else _gpu_entry(request.gpu),
        seconds=round(time.perf_counter() - started, 1),
        peak_bytes=peak,
    )


def _gpu_entry(gpu: Gpu) -> GpuEntry:
    return GpuEntry(name=gpu.name, multiprocessors=gpu.multiprocessors, memory=gpu.memory)


def _as_name(text: str) -> str:
    """`nvidia-h100-80gb-hbm3` of a GPU's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _entry_of(path: Path) -> FileEntry:
    return FileEntry(path=f"plans/{path.name}", sha256=sha256_of(path), size=path.stat().st_size)


def _write_table(table: LayerTable, path: Path) -> FileEntry | None:
    """Keep a plan's layers beside it; None, and no file, where the builder told of none."""
    if not table.layers:
        path.unlink(missing_ok=True)
        return None
    write_whole(path, table.packed())
    return _entry_of(path)


def _remove_abandoned(folder: Path) -> None:
    """Remove what builds that were killed have left: files whose process is gone."""
    for file in folder.glob(".*.plan-*"):
        match = re.search(r"\.plan-(\d+)-", file.name)
        if match is not None and not process_lives(int(match[1])):
            file.unlink(missing_ok=True)
