"""`lsx inspect`: what a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lsx.bundle import Bundle
from lsx.cli.console import out

__all__ = ["inspect"]


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by lsx export.")],
) -> None:
    """Print a bundle: model, hashes, graphs with I/O, precision and sizes, operator histogram, plans."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    model = manifest.model
    out.print(f"bundle: {bundle} (schema {manifest.schema_version}, lsx {manifest.lsx_version}, {manifest.created})")
    out.print(
        f"model: {model.version}, {model.resolution} px, {manifest.precision}, {model.frames} frames a call, "
        f"{model.video_fps} fps, {model.sample_rate} Hz"
    )
    out.print(f"mask: {model.mask}; faces: {manifest.faces.family}")
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
    for plan in manifest.plans:
        out.print(f"  {plan.graph}: {plan.backend} {plan.library_version}, {plan.target}, {plan.file.path}")
