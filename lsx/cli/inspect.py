"""`lsx inspect`: what a bundle or an avatar holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import GraphEntry, PlanEntry, VerificationRecord
from lsx.bundle.records import Coverage
from lsx.cli.console import emit, out, show_table
from lsx.errors import EngineError, StaleEngine, UsageError
from lsx.faces.avatar_folder import is_avatar

if TYPE_CHECKING:
    from lsx.engines.tensorrt.layer_table import LayerTable, PlanLayer

__all__ = ["inspect"]


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by lsx export, or avatar made by lsx prepare.")],
    plan: Annotated[str | None, typer.Option(help="Print the plans of this graph instead, layer by layer.")] = None,
    fusions: Annotated[
        bool, typer.Option("--fusions", help="With --plan: what became of attentions and norms, instead of the layers.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also hashes, tensors, parity and operators of every graph.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Print which layers of an int8 or fp8 bundle are quantized, and why not.")
    ] = False,
) -> None:
    """Print a bundle: model, precision, graphs and their sizes, plans, verification records; --all for every detail.

    Of an avatar: what it was prepared of and with, its faces and files; --all also hashes the files.
    """
    if is_avatar(bundle):
        _print_avatar(bundle, hashed=everything)
        return
    opened = Bundle.open(bundle)
    if fusions and plan is None:
        raise UsageError("--fusions is of a plan: name its graph with --plan")
    if plan is not None:
        _print_plans(opened, plan, only_fusions=fusions)
        return
    if layers:
        _print_layers(opened)
        return
    manifest = opened.manifest
    model = manifest.model
    out.print(f"bundle: {bundle} (schema {manifest.schema_version}, lsx {manifest.lsx_version}, {manifest.created})")
    out.print(
        f"model: {model.version}, {model.resolution} px, {manifest.precision}, {model.frames} frames a chunk, "
        f"{model.video_fps} fps, {model.sample_rate} Hz"
    )
    out.print(f"mask: {model.mask}; faces: {manifest.faces.family}")
    student = manifest.student
    if student is not None:
        out.print(
            f"student: {student.steps} steps of {student.sampler} without guidance, of the U-Net "
            f"{student.teacher[:12]} with guidance {student.teacher_guidance:g}"
        )
    fallback = opened.fallback()
    if fallback is not None:
        out.print(f"fallback: {fallback.manifest.precision}, a bundle of its own in {fallback.path}")
    if everything:
        hashes = Table("checkpoint file", "sha256", box=None, pad_edge=False)
        for name, digest in (model.checkpoint | manifest.faces.source).items():
            hashes.add_row(name, digest)
        show_table(hashes)
    data = {file.path: file.size for file in manifest.data}
    for name, graph in manifest.graphs.items():
        own = graph.file.path + ".data"
        size = graph.file.size + data.get(own, 0)
        shared = [path for path in graph.data if path != own]
        out.print(
            f"{name}: {graph.precision}, opset {graph.opset}, {size / 2**20:.1f} MiB"
            + (f", and weights in {', '.join(shared)}" if shared else "")
            + (f", {100 * graph.coverage:.1f} % of its FLOPs" if graph.coverage is not None else "")
        )
        if everything:
            _print_graph(graph)
    _print_built(opened)
    emit(**json.loads(manifest.text()), path=str(bundle))


def _print_avatar(path: Path, *, hashed: bool) -> None:
    """What it was prepared of and with, and what it holds."""
    from lsx.faces.avatar import Avatar

    avatar = Avatar.open(path)
    own = avatar.manifest
    if hashed:
        avatar.verify()
    out.print(f"avatar: {path} (schema {own.schema_version}, lsx {own.lsx_version}, {own.created})", markup=False)
    out.print(f"video: {own.video.name}, {own.video.width} x {own.video.height}, {own.frames} frames", markup=False)
    end = "the end" if own.end is None else f"{own.end:g} s"
    out.print(f"prepared: {own.start:g} s to {end}, fps {own.fps}, speaker {own.speaker}", markup=False)
    out.print(f"VAE encoder: {own.encoder[:12]}, {own.resolution} px, ran as {own.backend}", markup=False)
    for place, count in enumerate(avatar.face_counts):
        out.print(f"place {place}: a face in {count} frames")
    for file in own.files():
        kind = " (a proxy without loss)" if file == own.source and own.proxy is not None else ""
        out.print(f"  {file.path}: {file.size / 2**20:.1f} MiB{kind}" + (", intact" if hashed else ""), markup=False)
    emit(**json.loads(own.model_dump_json()), path=str(path))


def _print_graph(graph: GraphEntry) -> None:
    """Tensors, islands of float32, parity, operators and hash."""
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


def _print_built(bundle: Bundle) -> None:
    """Plans and verification records, a line each."""
    manifest = bundle.manifest
    out.print(f"plans: {len(manifest.plans) or 'none'}")
    for built in manifest.plans:
        out.print(f"  {_line(built)}", markup=False)
    out.print(f"verification records: {len(manifest.records) or 'none'}")
    for record in manifest.records:
        coverage = Coverage.of(record, manifest.precision)
        smoke = coverage.smoke_check
        state = "holds" if _holds(bundle, record) else "void: files have changed"
        kind = "verified" if smoke is None else f"smoke check, {smoke}"
        figures = ", ".join(f"{name} {value:.5f}" for name, value in record.figures.items())
        out.print(f"  {coverage}: {kind}; {record.engine}, {record.created}: {figures}; {state}", markup=False)


def _holds(bundle: Bundle, record: VerificationRecord) -> bool:
    """Whether every file that the record names is still the manifest's."""
    known = bundle.hashes(lambda one: [*one.graph_files(), *(plan.file for plan in one.manifest.plans)])
    return record.files.items() <= known.items()


def _print_layers(bundle: Bundle) -> None:
    """What is quantized, layer by layer."""
    quantization = bundle.manifest.quantization
    if quantization is None:
        raise UsageError(f"{bundle.path} is {bundle.manifest.precision}: no layer of it is quantized")
    bundle.verify(list(quantization.files))
    tables = json.loads((bundle.path / "quantisation" / "layers.json").read_text(encoding="utf-8"))
    emit(layers=tables)
    for target, content in tables.items():
        precision = content["precision"]
        out.print(
            f"{target}: {100 * content['coverage']:.1f} % of FLOPs in {precision}, cosine {content['cosine']:.5f} on "
            f"the calibration ({content['cosine_all_quantised']:.5f} with all of it quantized); ranges by "
            f"{content['method']}"
        )
        table = Table("layer", "FLOPs", "precision", "range", "error alone", "why fp16", box=None, pad_edge=False)
        for layer in content["layers"]:
            table.add_row(
                escape(layer["name"]),
                f"{100 * layer['flops_share']:.2f} %",
                precision if layer["quantised"] else "fp16",
                "" if layer["range"] is None else f"{layer['range']:.3g}",
                "" if layer["error"] is None else f"{layer['error']:.1e}",
                escape(layer["reason"] or ""),
            )
        show_table(table)


def _line(plan: PlanEntry) -> str:
    profiles = "; ".join(", ".join(f"{a} {'..'.join(str(n) for n in r)}" for a, r in p.items()) for p in plan.profiles)
    options = ", ".join(f"{name} {value}" for name, value in plan.options.items())
    return (
        f"{plan.file.path}: {plan.backend} {plan.library_version}, {plan.target}, {plan.file.size / 2**20:.1f} MiB, "
        f"lengths {profiles or 'fixed'}, {options}; built in {plan.seconds:.0f} s, {plan.peak_bytes / 2**30:.1f} GiB"
    )


def _print_plans(bundle: Bundle, graph: str, *, only_fusions: bool) -> None:
    """Each plan of a graph: its layers, and the network that it was built from."""
    from lsx.engines.tensorrt.inspection import parsed_network, plan_layers, plan_table
    from lsx.engines.tensorrt.libraries import LIBRARIES

    bundle.graph(graph)
    plans = [plan for plan in bundle.manifest.plans if plan.graph == graph]
    if not plans:
        raise StaleEngine(f"{bundle.path} has no plan of {graph}. Build it: lsx build {bundle.path} --graphs {graph}")
    emit(plans=[plan.model_dump(mode="json") for plan in plans])
    for plan in plans:
        bundle.verify([plan.file])
        out.print(_line(plan), markup=False)
        known = plan_table(bundle, plan)
        if known is not None:
            if not only_fusions:
                _print_plan_layers(known.layers)
            _print_fusions(known)
            continue
        try:
            _print_plan_layers(plan_layers(bundle, plan, LIBRARIES[plan.backend]))
        except EngineError as error:
            out.print(f"its layers are not known here: {error}", markup=False)
    if only_fusions:
        return
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


def _print_plan_layers(layers: Sequence[PlanLayer]) -> None:
    table = Table("layer", "type", "output", "MiB moved", "tactic", "ONNX nodes", box=None, pad_edge=False)
    for layer in layers:
        moved = f"{layer.moved / 2**20:.2f}" if layer.inputs else ""
        nodes = ", ".join(layer.nodes)
        table.add_row(*(escape(t) for t in (layer.name, layer.kind, layer.precision, moved, layer.tactic, nodes)))
    show_table(table)


def _print_fusions(table: LayerTable) -> None:
    """What the plan moves, and how it computes attentions and norms."""
    fusions = table.fusions()
    out.print(
        f"{len(table.layers)} layers move {table.moved / 2**20:.1f} MiB: what each reads and writes, every tensor once"
        + (" (with lengths that vary as 1)" if table.varying else "")
    )
    out.print(f"attentions: {fusions.attentions_in_one} of {fusions.attentions} in one kernel, scores and all")
    out.print(
        f"norms: {fusions.norms_with_neighbours} of {fusions.norms} in one kernel with their neighbours, "
        f"{fusions.norms_alone} in one of their own, {fusions.norms_apart} in several, most with neighbours"
    )
