"""Choosing the plan that fits: this library, this GPU, this graph, these lengths. What does not fit is refused."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import PlanEntry
from lsx.engines.gpu_info import Gpu
from lsx.engines.tensorrt.libraries import DataCentre, Library, sm_of
from lsx.engines.tensorrt.network import with_log
from lsx.errors import StaleEngine

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["another_gpu", "build_command", "engine_from_plan", "fitting_plan", "profile_for", "reason_stale"]


def fitting_plan(bundle: Bundle, graph: str, library: Library, gpu: Gpu) -> PlanEntry:
    """The plan of `graph` for this library and `gpu`, first one that was built on such a GPU.

    Raises StaleEngine with the command to run.
    """
    entries = [plan for plan in bundle.manifest.plans if plan.graph == graph and plan.backend == library.backend]
    reasons = []
    for plan in sorted(entries, key=lambda one: another_gpu(one, gpu) is not None):
        reason = reason_stale(bundle, plan, library, gpu)
        if reason is None:
            return plan
        reasons.append(f"{plan.file.path} {reason}")
    causes = "; ".join(reasons) or f"there is no {library.backend} plan of {graph}"
    raise StaleEngine(f"{causes}. Build it: {build_command(bundle, library, gpu.capability)}")


def another_gpu(plan: PlanEntry, gpu: Gpu) -> str | None:
    """How the GPU that a plan was built on differs from `gpu`, where that matters; None where it does not.

    TensorRT refuses a plan of another compute capability (see `reason_stale`), and only warns of another model of one.
    """
    built = plan.gpu
    if built is None or "hardware_compatible" in plan.options:
        return None
    if (built.name, built.multiprocessors) == (gpu.name, gpu.multiprocessors) and built.memory <= 1.02 * gpu.memory:
        return None  # drivers differ a little in what memory they keep for themselves
    was = Gpu(built.name, gpu.capability, built.multiprocessors, built.memory, "")
    return f"on {was.description}, and this is {gpu.description}"


def reason_stale(bundle: Bundle, plan: PlanEntry, library: Library, gpu: Gpu | None) -> str | None:
    """Why a plan cannot be used here; None where it can. gpu : None leaves the GPU out."""
    version = library.version
    if plan.library_version != version and not _same_major(plan, version):
        return f"was built by {library.backend} {plan.library_version}, and this is {version}"
    hardware_compatible = "hardware_compatible" in plan.options
    if gpu is not None and not library.fits(plan.target, gpu.capability, hardware_compatible=hardware_compatible):
        return f"was built for {plan.target}, and this GPU is {sm_of(gpu.capability)}"
    if plan.onnx != tuple(file.sha256 for file in bundle.files(plan.graph)):
        return "was built from another graph than the bundle's"
    return None


def _same_major(plan: PlanEntry, version: str) -> bool:
    older = plan.library_version.split(".")[0] == version.split(".", maxsplit=1)[0]
    return "version_compatible" in plan.options and older


def build_command(bundle: Bundle, library: Library, capability: tuple[int, int]) -> str:
    """The command that builds what fits here."""
    if capability in library.refused:
        return f"lsx build {bundle.path} --backend {DataCentre.backend}"
    command = f"lsx build {bundle.path} --backend {library.backend}"
    defaults = library.default_targets
    if defaults and not any(library.fits(target, capability, hardware_compatible=False) for target in defaults):
        command += " --target current"
    return command


def profile_for(plan: PlanEntry, axes: Mapping[str, int], bundle: Bundle) -> int:
    """Index of the plan's profile that takes these lengths. Raises StaleEngine with the command to run."""
    for index, profile in enumerate(plan.profiles):
        if all(low <= axes.get(axis, low) <= high for axis, (low, _, high) in profile.items()):
            return index
    lengths = ", ".join(f"{axis} = {length}" for axis, length in axes.items())
    raise StaleEngine(
        f"{plan.file.path} was not built for {lengths}. Build it for both batches: lsx build {bundle.path} "
        f"--backend {plan.backend} --guidance both"
    )


def engine_from_plan(runtime: trt.Runtime, logger: Any, bundle: Bundle, plan: PlanEntry) -> trt.ICudaEngine:
    """A plan, deserialised. Raises StaleEngine with the library's own reason and the command to run."""
    path = bundle.path / plan.file.path
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(content)
    if engine is None:
        refused = "does not support this compute capability" in logger.last
        advice = (
            f"{plan.backend} does not run on this GPU: lsx build {bundle.path} --backend {DataCentre.backend}"
            if refused
            else f"Build it again: lsx build {bundle.path} --backend {plan.backend} --force"
        )
        raise with_log(StaleEngine(f"{path}: {plan.backend} does not load it: {logger.last}. {advice}"), logger)
    return engine
