"""`lsx inspect`: what a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lsx.bundle import Bundle, PlanEntry
from lsx.cli.console import out
from lsx.errors import EngineError, StaleEngine

__all__ = ["inspect"]


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by lsx export.")],
    plan: Annotated[str | None, typer.Option(help="Print the plans of this graph instead, layer by layer.")] = None,
) -> None:
    """Print a bundle: model, hashes, graphs with I/O, precision and sizes, operator histogram, plans."""
    opened = Bundle.open(bundle)
    if plan is not None:
        _print_plans(opened, plan)
        return
    manifest = opened.manifest
    model = manifest.model
    out.print(f"bundle: {bundle} (schema {manifest.schema_version}, lsx {manifest.lsx_version}, {manifest.created})")
    out.print(
        f"model: {model.version}, {model.resolution} px, {manifest.precision}, {model.frames} frames a call, "
        f"{model.video_fps} fps, {model.sample_rate} Hz"
    )
    out.print(f"mask: {model.mask}; faces: {manifest.faces.family}")
    wider = opened.fallback()
    if wider is not None:
        out.print(f"fallback: {wider.manifest.precision}, a bundle of its own in {wider.path}")
    hashes = Table("checkpoint file", "sha256", box=None, pad_edge=False)
    for name, digest in (model.checkpoint | manifest.faces.source).items():
        hashes.add_row(name, digest)
    out.print(hashes)
    data = {file.path: file.size for file in manifest.data}
    for name, graph in manifest.graphs.items():
        own = graph.file.path + ".data"
        size = graph.file.size + data.get(own, 0)
        shared = [path for path in graph.data if path != own]
        out.print(
            f"\n{name}: {graph.precision}, opset {graph.opset}, {size / 2**20:.1f} MiB"
            + (f", and weights in {', '.join(shared)}" if shared else "")
        )
        for kind, tensors in (("in ", graph.inputs), ("out", graph.outputs)):
            for tensor in tensors:
                out.print(f"  {kind} {tensor.spec()}", markup=False)
        for island in graph.islands:
            out.print(f"  fp32 {island}", markup=False)
        for parity in graph.parity:
            out.print(
                f"  parity {parity.output}: max {parity.max_error:.3g}, mean {parity.mean_error:.3g}, "
                f"cosine {parity.cosine:.7f} ({parity.method})"
            )
        histogram = sorted(graph.operators.items(), key=lambda item: -item[1])
        out.print("  operators " + ", ".join(f"{operator} {count}" for operator, count in histogram))
        out.print(f"  sha256 {graph.file.sha256}")
    out.print(f"\nplans: {len(manifest.plans) or 'none'}")
    for built in manifest.plans:
        out.print(f"  {_line(built)}", markup=False)


def _line(plan: PlanEntry) -> str:
    profiles = "; ".join(", ".join(f"{a} {'..'.join(str(n) for n in r)}" for a, r in p.items()) for p in plan.profiles)
    options = ", ".join(f"{name} {value}" for name, value in plan.options.items())
    return (
        f"{plan.file.path}: {plan.backend} {plan.library_version}, {plan.target}, {plan.file.size / 2**20:.1f} MiB, "
        f"lengths {profiles or 'fixed'}, {options}; built in {plan.seconds:.0f} s, {plan.peak_bytes / 2**30:.1f} GiB"
    )


def _print_plans(bundle: Bundle, graph: str) -> None:
    """Each plan of a graph: its layers on a GPU, the network that it was built from elsewhere."""
    from lsx.engines.tensorrt.inspection import parsed_network, plan_layers
    from lsx.engines.tensorrt.libraries import LIBRARIES

    bundle.graph(graph)
    plans = [plan for plan in bundle.manifest.plans if plan.graph == graph]
    if not plans:
        raise StaleEngine(f"{bundle.path} has no plan of {graph}. Build it: lsx build {bundle.path} --graphs {graph}")
    for plan in plans:
        bundle.verify([plan.file])
        out.print(_line(plan), markup=False)
        library = LIBRARIES[plan.backend]
        try:
            layers = plan_layers(bundle, plan, library)
        except EngineError as error:
            out.print(f"its layers are not known here: {error}", markup=False)
            continue
        table = Table("layer", "type", "output", "tactic", box=None, pad_edge=False)
        for layer in layers:
            table.add_row(*(escape(text) for text in (layer.name, layer.kind, layer.precision, layer.tactic)))
        out.print(table)
    network = parsed_network(bundle, graph, LIBRARIES[plans[0].backend])
    out.print("\nthe parsed network, before anything is fused:")
    for title, counts in (
        ("layers", network.layers),
        ("precisions of computing layers", network.precisions),
        ("of them in float32", network.float32_layers),
    ):
        out.print(f"  {title}: " + (", ".join(f"{name} {n}" for name, n in counts.items()) or "none"))
    for reason in network.kept_float32:
        out.print(f"  float32 {reason}", markup=False)
    out.print(f"  tensors alive at once: at most {network.activation_bytes / 2**20:.1f} MiB, less when fused")
