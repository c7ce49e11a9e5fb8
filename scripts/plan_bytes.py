"""What the plan of a full-width U-Net moves, by TensorRT-RTX's own layer table: it needs neither a GPU nor weights.

python scripts/plan_bytes.py --resolution 512 --graph unet_shallow -o unet_shallow-512.gz
python scripts/plan_bytes.py --compare BEFORE AFTER      two folders of such files, as a table
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from lsx.core.model_spec import ModelSpec
from lsx.engines.tensorrt.layer_table import LayerTable, layers_in_log, read_table, told_kinds
from lsx.engines.tensorrt.libraries import LIBRARIES
from lsx.engines.tensorrt.network import collecting_logger, network_from_file
from lsx.export.onnx_file import WeightStore, save_model
from lsx.export.tensorrt_form import to_tensorrt_form
from lsx.export.tracing import trace
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.modules import UNetGraph, UNetShallowGraph
from lsx.graphs.precision import to_precision, torch_dtype
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig


def main() -> None:
    """Trace, build, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--graph", choices=("unet", "unet_shallow"), default="unet_shallow")
    parser.add_argument("--level", type=int, default=3, help="builder optimisation level")
    parser.add_argument("--share-halves", action="store_true", help="as lsx export --share-halves")
    parser.add_argument("-o", "--output", type=Path, help="keep the layer table here")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="folders of them")
    given = parser.parse_args()
    if given.compare:
        _compare(*given.compare)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = plan_table_of(
            _onnx(given.graph, given.resolution, Path(folder), halves=given.share_halves), given.level
        )
    if given.output is not None:
        given.output.write_bytes(table.packed())
    by_kind: Counter[str] = Counter()
    for layer in table.layers:
        by_kind[layer.kind] += layer.moved
    print(
        f"{given.graph}, {given.resolution} px, fp16, batch 2: {table.moved / 1e6:.0f} MB, {len(table.layers)} layers"
    )
    for kind, moved in by_kind.most_common(8):
        print(f"  {kind}: {moved / 1e6:.0f} MB")
    print(f"  {table.fusions()}")


def _compare(before: Path, after: Path) -> None:
    """What the plans of both folders move, file by file."""
    print("| plan | layers | MB moved |  | norms in one kernel | attentions in one kernel |\n|---|---|---|---|---|---|")
    for file in sorted(after.glob("*.gz")):
        old, new = (read_table((folder / file.name).read_bytes()) for folder in (before, after))
        counts = [table.fusions() for table in (old, new)]
        norms = [f"{c.norms_alone + c.norms_with_neighbours} of {c.norms}" for c in counts]
        attentions = [f"{c.attentions_in_one} of {c.attentions}" for c in counts]
        graph, _, resolution = file.stem.rpartition("-")
        print(
            f"| {graph}, {resolution} px | {len(old.layers)} to {len(new.layers)} "
            f"| {old.moved / 1e6:,.0f} to {new.moved / 1e6:,.0f} | {100 * (new.moved / old.moved - 1):+.1f} % "
            f"| {' to '.join(norms)} | {' to '.join(attentions)} |"
        )


def _onnx(graph: str, resolution: int, folder: Path, *, halves: bool) -> Path:
    """The graph at full width, random weights, batch 2."""
    spec = GRAPHS[graph]
    model = ModelSpec(version="random", resolution=resolution)
    torch.manual_seed(0)
    unet = UNet3D(UNetConfig()).eval().requires_grad_(False)
    module = UNetGraph(unet) if graph == "unet" else UNetShallowGraph(unet)
    if halves:
        module.share_halves(model.frames)
    feed = spec.example_inputs(model, module, 2)
    graph_dtype = torch_dtype("fp16")
    arguments = [
        torch.from_numpy(a).to(graph_dtype) if n in spec.graph_dtype_tensors else torch.from_numpy(a)
        for n, a in feed.items()
    ]
    to_precision(module, graph, "fp16")
    traced = trace(module, arguments, list(feed), spec.outputs, None)
    to_tensorrt_form(traced)
    path = folder / f"{graph}.onnx"
    save_model(traced, path, WeightStore(folder))
    return path


def plan_table_of(path: Path, level: int) -> LayerTable:
    """Build a plan of an ONNX file of fixed shapes, and give its layers."""
    library = LIBRARIES["tensorrt-rtx"]
    trt: Any = library.module()
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network, parser = network_from_file(library, builder, logger, path, path.stem)
    kinds = told_kinds(network)
    config = builder.create_builder_config()
    config.builder_optimization_level = level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if builder.build_serialized_network(network, config) is None:
        raise SystemExit(f"{path}: not built: {logger.last}")
    del parser
    return LayerTable(layers_in_log(logger.layers), kinds)


if __name__ == "__main__":
    main()
