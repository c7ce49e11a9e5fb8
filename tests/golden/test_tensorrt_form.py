"""The form that TensorRT gets computes what PyTorch computes: on ONNX Runtime, at both batches, for other seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.export.onnx_file import WeightStore, save_model
from lsx.export.tensorrt_form import to_tensorrt_form
from lsx.export.tracing import free_leading_axis, trace
from lsx.graphs.graph_specs import GRAPHS, in_halves
from lsx.graphs.modules import GraphModule, GuidedGraph, UNetGraph, UNetShallowGraph
from lsx.graphs.precision import to_precision
from lsx.models.random_checkpoint import seeded_weight
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig

MODEL = ModelSpec(version="random", resolution=64)
NARROW = UNetConfig(block_out_channels=(32, 64), attention_levels=(True, False), heads=4, norm_groups=8)


def narrow_module(graph: str, seed: int, config: UNetConfig = NARROW) -> GuidedGraph:
    unet = UNet3D(config).eval().requires_grad_(False)
    for name, parameter in unet.named_parameters():
        parameter.copy_(torch.from_numpy(seeded_weight(name, tuple(parameter.shape), seed)))
    return UNetGraph(unet) if graph == "unet" else UNetShallowGraph(unet)


def _sharing(graph: str, seed: int, config: UNetConfig = NARROW) -> GraphModule:
    """The same as it is exported with guidance."""
    module = narrow_module(graph, seed, config)
    module.share_halves(MODEL.frames)
    return module


def _traced(
    graph: str, module: GraphModule, graph_dtype: torch.dtype = torch.float32, spec: ModelSpec = MODEL
) -> ir.Model:
    contract = GRAPHS[graph]
    feed = {name: torch.from_numpy(array) for name, array in contract.example_inputs(spec, module, 2).items()}
    arguments = [
        tensor.to(graph_dtype) if name in contract.graph_dtype_tensors else tensor for name, tensor in feed.items()
    ]
    return trace(module, arguments, list(feed), contract.outputs, None)


def _run(model: ir.Model, feed: dict[str, NDArray[Any]], folder: Path) -> list[NDArray[Any]]:
    path = folder / "graph.onnx"
    save_model(model, path, WeightStore(folder))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    made: list[NDArray[Any]] = session.run(None, feed)
    return made


def _worst(
    graph: str, module: GraphModule, model: ir.Model, batch: int, folder: Path, *, halves: bool = False
) -> float:
    """The largest difference from PyTorch, in deviations of what it gives."""
    feed = GRAPHS[graph].example_inputs(MODEL, module, batch)
    feed = in_halves(feed) if halves else feed
    with torch.inference_mode():
        wanted = module(*(torch.from_numpy(array) for array in feed.values()))
    outputs = wanted if isinstance(wanted, tuple) else (wanted,)
    made = _run(model, feed, folder)
    return max(float(np.abs(a - b.numpy()).max() / b.numpy().std()) for a, b in zip(made, outputs, strict=True))


@pytest.mark.parametrize(
    ("graph", "seed", "halves"),
    [("unet_shallow", 1, False), ("unet_shallow", 2, True), ("unet", 3, True)],
)
def test_it_computes_what_pytorch_computes(graph: str, seed: int, halves: bool, tmp_path: Path) -> None:
    module = narrow_module(graph, seed)
    model = _traced(graph, _sharing(graph, seed) if halves else module)
    attentions = [node.name for node in model.graph if node.op_type == "Attention"]
    assert to_tensorrt_form(model) == len(attentions) > 0
    assert [node.name for node in model.graph if node.op_type == "Attention"] == attentions
    free_leading_axis(model, "b", GRAPHS[graph].varying)
    for batch in (1, 2):
        folder = tmp_path / str(batch)
        folder.mkdir()
        # float32's rounding over a few hundred operations; a token in another's place is of the order of 1.
        assert _worst(graph, module, model, batch, folder, halves=halves) < 2e-4


def test_tokens_lie_sequence_first_between_the_edges() -> None:
    """No transpose between a norm and its linear layer, nor around an addition: edges and heads alone have some."""
    model = _traced("unet_shallow", narrow_module("unet_shallow", 1))
    before = sum(node.op_type == "Transpose" for node in model.graph)
    to_tensorrt_form(model)
    blocks = [node for node in model.graph if node.op_type == "LayerNormalization"]
    assert len(blocks) == 6
    for node in blocks:
        shape = node.outputs[0].shape
        assert shape is not None
        assert shape[1] != shape[0]
        assert int(str(shape[0])) in (MODEL.latent**2, MODEL.frames)  # pixels of a frame, or frames of a pixel
        assert all(user.op_type != "Transpose" for user, _ in node.outputs[0].uses())
    after = sum(node.op_type == "Transpose" for node in model.graph)
    heads = 4 * 4  # q, k, v and the result of each attention
    edges = 2 + 2 + 1  # into and out of both transformers, and the sound
    assert after - before == heads + edges


def test_a_fault_is_seen(tmp_path: Path) -> None:
    """Batch and heads the wrong way round when heads are joined again, where both are as many."""
    module = narrow_module("unet_shallow", 1, replace(NARROW, heads=32, motion_heads=32))
    model = _traced("unet_shallow", module)
    to_tensorrt_form(model)
    joining = [
        n for n in model.graph if n.op_type == "Transpose" and list(n.attributes["perm"].as_ints()) == [2, 0, 1, 3]
    ]
    assert len(joining) == 4
    joining[0].attributes["perm"] = ir.AttrInt64s("perm", [2, 1, 0, 3])
    assert _worst("unet_shallow", module, model, 2, tmp_path) > 0.01


def test_its_plan_moves_less_and_takes_no_norm_apart(tmp_path: Path) -> None:
    """In TensorRT-RTX's own layer table, heads being as wide as the released model's."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")
    from scripts.plan_bytes import plan_table_of

    config = replace(NARROW, block_out_channels=(160, 32), motion_heads=4)
    moved, apart = [], []
    for rewritten in (False, True):
        module = narrow_module("unet_shallow", 1, config)
        to_precision(module, "unet_shallow", "fp16")
        model = _traced("unet_shallow", module, torch.float16, replace(MODEL, resolution=128))
        norms = [node.name for node in model.graph if node.op_type == "LayerNormalization"]
        if rewritten:
            to_tensorrt_form(model)
        folder = tmp_path / str(rewritten)
        folder.mkdir()
        save_model(model, folder / "graph.onnx", WeightStore(folder))
        table = plan_table_of(folder / "graph.onnx", 0)
        assert table.fusions().attentions_in_one == 4
        kernels = Counter(node for layer in table.layers if layer.inputs for node in set(layer.nodes))
        moved.append(table.moved)
        apart.append(sum(kernels[str(name)] > 1 for name in norms))
    assert apart == [3, 0]
    assert moved[1] < 0.95 * moved[0]


def test_a_graph_without_attention_stays_as_it_is() -> None:
    spec = GRAPHS["step"]
    module = spec.build(None)  # type: ignore[arg-type]
    feed = spec.example_inputs(MODEL, module, 2)
    model = trace(module, [torch.from_numpy(a) for a in feed.values()], list(feed), spec.outputs, None)
    before = [node.name for node in model.graph]
    assert to_tensorrt_form(model) == 0
    assert [node.name for node in model.graph] == before
