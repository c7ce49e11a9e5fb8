"""What is in a plan, told on a machine without a GPU: its network, its layers, its fusions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import onnx
import pytest

from lsx.bundle.bundle import Bundle
from lsx.cli.main import main
from lsx.core.tensors import Precision
from lsx.engines.tensorrt.building import build_plans
from lsx.engines.tensorrt.inspection import parsed_network, plan_table
from lsx.engines.tensorrt.libraries import LIBRARIES
from lsx.errors import IntegrityError
from tests.tensorrt_builds import FAST

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")

Bundles = Callable[[Precision, int], Bundle]


def test_inspect_tells_what_is_in_a_plans_network(own: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    network = parsed_network(own, "unet_shallow", LIBRARIES["tensorrt-rtx"])
    assert network.layers["CONVOLUTION"] == own.graph("unet_shallow").operators["Conv"]
    assert network.precisions["HALF"] > network.precisions["FLOAT"] > 0
    assert any("time_embedding" in reason for reason in network.kept_float32)
    assert network.activation_bytes > 2 * 16 * 32 * 32 * 32 * 2
    build_plans(own, "tensorrt-rtx", graphs=("unet_shallow",), options=FAST)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(own.path), "--plan", "unet_shallow"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "unet_shallow.fp16.tensorrt-rtx.portable.plan" in printed
    assert "CONVOLUTION" in printed
    assert "MiB moved" in printed  # the builder's own table: no GPU is needed
    assert "not known here" not in printed
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(own.path), "--plan", "unet"])
    assert ended.value.code == 1
    assert "lsx build" in capsys.readouterr().err


@pytest.mark.parametrize("graph", ["unet_shallow", "unet"])
def test_what_a_plan_does_with_norms_and_attention(own: Bundle, graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every norm and attention of the ONNX file is found in the built plan; each norm subtracts its mean first."""
    build_plans(own, "tensorrt-rtx", graphs=(graph,), options=FAST)
    opened = Bundle.open(own.path)
    (plan,) = opened.manifest.plans
    table = plan_table(opened, plan)
    assert table is not None
    names: dict[str, set[str]] = {}
    for node in onnx.load(str(opened.path / opened.graph(graph).file.path), load_external_data=False).graph.node:
        names.setdefault(node.op_type, set()).add(node.name)
    norms = names["GroupNormalization"] | names.get("LayerNormalization", set())
    assert {name for name, kind in table.kinds.items() if kind == "NORMALIZATION"} == norms
    found = table.fusions()
    assert found.norms == len(norms)
    assert found.attentions == len(names["Attention"])
    assert {name for name, kind in table.kinds.items() if kind == "ATTENTION"} == names["Attention"]
    for name in norms:
        layers = [layer for layer in table.layers if name in layer.nodes and layer.inputs]
        words = "".join(layer.name for layer in layers)
        # A kernel of TensorRT's own for whole norms, or generated code: mean, x - mean, its square's mean.
        assert re.search("[GI]nor|Mean.*Sub.*Mul.*Mean", words), (name, words)
    # Bytes by hand of the plan's first convolution: what it reads and writes, once each.
    layer = next(one for one in table.layers if one.kind == "correlation")
    sizes = {"Half": 2, "Float": 4}
    by_hand = [math.prod(t.shape) * sizes[t.dtype] for t in (*layer.inputs, *layer.constants, *layer.outputs)]
    assert layer.moved == sum(by_hand)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(own.path), "--plan", graph, "--fusions"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"of {len(norms)} in one kernel with their neighbours" in printed
    assert "MiB" in printed
    assert plan.layers is not None
    (opened.path / plan.layers.path).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="layers"):
        Bundle.open(own.path).verify()
