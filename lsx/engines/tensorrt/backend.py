"""TensorRT and TensorRT-RTX as backends."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lsx.engines.cuda_device import shared_device
from lsx.engines.gpu_info import first_gpu
from lsx.engines.registry import Backend, EngineOptions, reasons_of
from lsx.engines.tensorrt.building import PLANNED
from lsx.engines.tensorrt.engine import TensorRtEngine
from lsx.engines.tensorrt.libraries import LIBRARIES
from lsx.engines.tensorrt.plans import another_gpu, build_command, fitting_plan
from lsx.errors import EngineError

if TYPE_CHECKING:
    from lsx.bundle.bundle import Bundle
    from lsx.bundle.manifest import FileEntry
    from lsx.engines.engine import Engine

__all__ = ["RtxBackend", "TensorRtBackend"]


class _PlanBackend(Backend):
    def availability(self) -> tuple[bool, str]:
        library, reasons = LIBRARIES[self.name], self._reasons()
        if not reasons:
            return True, f"{library.version} on {first_gpu().name}"
        told = "; ".join(reasons)
        if reasons_of(library.check_builds_here):
            return False, told
        return False, f"{library.version} builds plans here, but does not run them: {told}"

    def _reasons(self) -> list[str]:
        """What this machine lacks, whatever the bundle: library, driver."""
        return reasons_of(lambda: LIBRARIES[self.name].version, first_gpu)

    def missing(self, bundle: Bundle) -> list[str]:
        reasons = self._reasons()
        if not any(plan.backend == self.name for plan in bundle.manifest.plans):
            reasons.append(f"the bundle has no plans for it. Build them: lsx build {bundle.path} --backend {self.name}")
        return reasons

    def reason_unsupported(self, bundle: Bundle) -> str | None:
        try:
            for graph in PLANNED:
                fitting_plan(bundle, graph, LIBRARIES[self.name], first_gpu())
        except EngineError as error:
            return str(error)
        return None

    def files(self, bundle: Bundle) -> list[FileEntry]:
        library, gpu = LIBRARIES[self.name], first_gpu()
        plans = [fitting_plan(bundle, graph, library, gpu).file for graph in PLANNED]
        others = [file for graph in bundle.manifest.graphs if graph not in PLANNED for file in bundle.files(graph)]
        return plans + others

    def supports(self, graph: str) -> bool:
        return graph in PLANNED

    def engine(self, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
        if not self.supports(graph):
            raise EngineError(f"{graph} has no plans; it runs on onnxruntime")
        library = LIBRARIES[self.name]
        library.module()
        gpu = first_gpu()
        plan = fitting_plan(bundle, graph, library, gpu)
        differs = another_gpu(plan, gpu)
        if differs is not None:
            warnings.warn(
                f"the {self.name} plans of {bundle.path} were built {differs}: TensorRT may run slowly or fail. "
                f"Build them here: {build_command(bundle, library, gpu.capability)}",
                RuntimeWarning,
                stacklevel=2,
            )
        bundle.verify([plan.file])
        entry = bundle.graph(graph)
        return TensorRtEngine(
            library,
            bundle,
            plan,
            [tensor.spec() for tensor in entry.inputs],
            [tensor.spec() for tensor in entry.outputs],
            shared_device(),
            trust_code=options.trust_code,
        )


class TensorRtBackend(_PlanBackend):
    """TensorRT."""

    name = "tensorrt"


class RtxBackend(_PlanBackend):
    """TensorRT for RTX."""

    name = "tensorrt-rtx"
