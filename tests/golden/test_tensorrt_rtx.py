"""Every exported graph through a real TensorRT: TensorRT-RTX parses and builds it, no GPU needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lsx.bundle import Bundle
from lsx.export.graphs import GRAPHS
from lsx.runtime.faces import FACE_GRAPHS
from lsx.specs import Precision

Bundles = Callable[[Precision, int], Bundle]


@pytest.mark.parametrize("graph", [*GRAPHS, *FACE_GRAPHS])
def test_a_plan_is_built(bundle: Bundles, graph: str) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")
    opened = bundle("fp16", 256)
    entry = opened.graph(graph)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(opened.path / entry.file.path))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    lengths = {"b": 2, "F": 16, "n": 1}
    wanted = [[lengths[n] if isinstance(n, str) else n for n in t.shape] for t in (*entry.inputs, *entry.outputs)]
    for index, shape in enumerate(wanted[: len(entry.inputs)]):
        network.get_input(index).shape = shape
    # With the inputs fixed nothing varies: TensorRT sees the static shapes of the contract throughout.
    outputs = [list(network.get_output(i).shape) for i in range(network.num_outputs)]
    assert outputs == wanted[len(entry.inputs) :]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    config.builder_optimization_level = 0
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 0
