"""FLOPs and bytes of a graph against PyTorch's counter and against numbers that are known; the roofline of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lsx.bench.flops import GraphCost, graph_cost_of_file
from lsx.bench.peaks import Peaks
from lsx.bench.report import (
    Row,
    Spread,
)
from lsx.bench.roofline import roofline
from lsx.export.onnx_file import save_model
from lsx.export.tracing import free_leading_axis, trace
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig


class _Small(nn.Module):
    """A convolution, a norm that ONNX cannot infer through, attention, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(4, 8)
        self.linear = nn.Linear(8, 16)
        self.out = nn.Linear(16, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.grouped(self.conv(x))).flatten(2).transpose(1, 2)
        q = self.linear(y)
        mixed = torch.softmax(q @ q.transpose(1, 2), dim=-1) @ q
        out: torch.Tensor = self.out(mixed)
        return out


def test_flops_are_pytorchs(tmp_path: Path) -> None:
    module, x = _Small().eval(), torch.zeros(2, 3, 6, 5)
    model = trace(module, [x], ["x"], ("y",), None)
    free_leading_axis(model, "b", {"x": 0, "y": 0})
    save_model(model, tmp_path / "small.onnx")
    found = graph_cost_of_file(tmp_path / "small.onnx", {"b": 5})
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(5, 3, 6, 5))
    assert found.flops == counter.get_total_flops()
    weights = sum(p.numel() for p in module.parameters())
    assert found.bytes == pytest.approx(4 * (weights + 5 * 3 * 30 + 5 * 30 * 4), abs=200)  # shapes are small constants


def test_the_models_total_is_the_known_one() -> None:
    """8.10 TFLOP for the U-Net at 256 px, guidance batch 2, 16 frames; 0.53 where only the last layer runs."""
    with torch.device("meta"):
        unet = UNet3D(UNetConfig()).eval()
        sample, time, audio = torch.zeros(2, 13, 16, 32, 32), torch.zeros(1), torch.zeros(2, 16, 50, 384)
    with FlopCounterMode(display=False) as counter:
        _, deep = unet(sample, time, audio)
    assert counter.get_total_flops() / 1e12 == pytest.approx(8.10, rel=0.02)
    with FlopCounterMode(display=False) as counter:
        unet.forward_shallow(sample, time, audio, deep)
    assert counter.get_total_flops() / 1e12 == pytest.approx(0.53, rel=0.02)


def test_attention_as_one_operator(tmp_path: Path) -> None:
    def shaped(name: str, shape: tuple[int, ...]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=4)
    inputs = [shaped("q", (2, 7, 32)), shaped("k", (2, 50, 32)), shaped("v", (2, 50, 32))]
    graph = onnx.helper.make_graph([node], "g", inputs, [shaped("y", (2, 7, 32))])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)]), tmp_path / "a.onnx")
    assert graph_cost_of_file(tmp_path / "a.onnx", {}).flops == 2 * 2 * (2 * 7 * 50 * 32)
    assert ir.load(tmp_path / "a.onnx").graph.name == "g"


def test_the_roofline_takes_a_plans_own_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = GraphCost(flops=8e12, bytes=2e9, by_operator={})
    monkeypatch.setattr("lsx.bench.roofline.graph_cost", lambda *_: cost)
    taken = Spread(median=0.5, low=0.5, high=0.5, first=None, repeats=3)
    rows = [Row(section="graphs", what="unet", contender=name, seconds=taken) for name in ("planned", "other")]
    bundle: Any = None
    made = roofline(
        rows,
        Peaks(flops=1e15, bytes=1e12, how="given"),
        {"unet": {}},
        {"planned": bundle, "other": bundle},
        {("planned", "unet"): int(1e11)},
    )
    planned, other = made.rows
    assert (planned.bytes, planned.bytes_of, planned.bytes_share, planned.bound) == (1e11, "plan", 0.2, "memory")
    assert (other.bytes, other.bytes_of, other.bytes_share, other.bound) == (2e9, "graph", 0.004, "compute")
