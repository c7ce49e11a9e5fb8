"""Stage 6: plans of both libraries for the GPU at hand, each graph's time and what it moves."""

from __future__ import annotations

import statistics
from typing import Any

from lsx.bench.timing import Budget, measure
from lsx.bench.workloads import graph_axes, graph_works
from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import MODEL_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.engines.loading import load_engine
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans
from lsx.engines.tensorrt.libraries import CURRENT, LIBRARIES, Library
from lsx.errors import BackendUnavailable
from scripts.gpu.checks import Checks, Skipped
from scripts.gpu.models import bundles_of
from scripts.gpu.stage import Settings

__all__ = ["run"]


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 6."""
    for name, bundle, _ in bundles_of(checks, settings):
        for library in LIBRARIES.values():
            what = f"{library.backend}, {name}"
            if checks.run(f"build, {what}", _built, bundle, library) is None:
                continue
            opened = Bundle.open(bundle.path)
            for graph in MODEL_GRAPHS:
                checks.run(f"{graph}, {what}", _measured, opened, graph, library)


def _built(bundle: Bundle, library: Library) -> dict[str, Any]:
    try:
        targets = (CURRENT,) if library.default_targets else ()
        report = build_plans(bundle, library.backend, targets=targets, options=BuildOptions(guidance="both"))
    except BackendUnavailable as error:
        raise Skipped(str(error)) from error
    return {
        plan.graph: f"{plan.seconds:.0f} s, {plan.file.size / 2**20:.0f} MiB" for plan in report.built + report.kept
    }


def _measured(bundle: Bundle, graph: str, library: Library) -> dict[str, Any]:
    with load_engine(bundle, graph, library.backend) as engine:
        axes = graph_axes([engine], bundle.model, SamplingOptions())
        found = measure(graph_works(library.backend, engine, axes), Budget(seconds=10, least=5))
        moved = engine.bytes_moved()
    return {"ms": 1e3 * statistics.median(found[library.backend][1:]), "bytes_moved": moved}
