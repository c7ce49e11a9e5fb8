"""Quantized layers against NumPy, smoothing against the module it changes, the coverage check against planted gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lsx.core.noise import named_noise
from lsx.core.tensors import LOW_PRECISIONS, LowPrecision, TensorSpec
from lsx.engines.onnxruntime import OnnxOptions, engine_from_onnx
from lsx.errors import ExportError
from lsx.export.onnx_file import save_model
from lsx.export.tracing import trace
from lsx.graphs.modules import GraphModule
from lsx.models.attention import MotionModule, SpatialTransformer
from lsx.quantization.coverage import check_coverage
from lsx.quantization.qdq_layers import QuantizedConv2d, QuantizedLinear, fake_quantize, quantized_layer
from lsx.quantization.ranges import _least_square_error
from lsx.quantization.recipe import Recipe, apply_recipe, replace_layer
from lsx.quantization.smoothing import fold, smoothing_factors, smoothing_groups


def seeded(module: nn.Module) -> nn.Module:
    for name, value in module.state_dict().items():
        if not name.endswith("pe"):
            value.copy_(torch.from_numpy(named_noise(name, tuple(value.shape), 0)) / 4 + ("norm" in name) * 1.0)
    return module.eval().requires_grad_(False)


def grid(precision: LowPrecision) -> np.ndarray:
    """Every number that a code can mean at scale 1, from the formats' definitions."""
    if precision == "int8":
        return np.arange(-128, 128, dtype=np.float64)
    positive = [m / 8 * 2.0**-6 for m in range(8)]
    positive += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
    return np.array(sorted({-p for p in positive} | set(positive)))


@pytest.mark.parametrize("precision", LOW_PRECISIONS)
def test_fake_quantization_is_the_nearest_code(precision: LowPrecision) -> None:
    x = named_noise("x", (4000,), 0).astype(np.float32) * 40
    scale = 0.25
    codes = grid(precision)
    nearest = codes[np.abs(x[:, None] / scale - codes).argmin(1)]
    found = fake_quantize(torch.from_numpy(x), torch.tensor(scale), precision).numpy()
    assert np.abs(found - nearest * scale).max() <= (1e-6 if precision == "int8" else 16 * scale * 1e-6)


@pytest.mark.parametrize("precision", LOW_PRECISIONS)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_quantized_layer_in_onnx(tmp_path: Path, kind: str, precision: LowPrecision) -> None:
    """Q/DQ in the file: both inputs, weights per channel of the output, and the numbers of the simulation."""
    layer = seeded(nn.Linear(24, 32) if kind == "linear" else nn.Conv2d(16, 24, 3, stride=2, padding=1))
    x = named_noise("in", (5, 24) if kind == "linear" else (2, 16, 10, 10), 0)
    quantized = quantized_layer(layer, 3.0, precision)
    assert isinstance(quantized, QuantizedLinear if kind == "linear" else QuantizedConv2d)
    model = trace(quantized, [torch.from_numpy(x)], ["x"], ["y"])
    save_model(model, tmp_path / "layer.onnx")
    proto = onnx.load(str(tmp_path / "layer.onnx"))
    onnx.checker.check_model(proto)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 2
    arrays = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    scale = arrays["weight_scale"]
    weight = layer.weight.numpy()  # type: ignore[operator]
    per_channel = np.abs(weight).reshape(len(weight), -1).max(1) / (127 if precision == "int8" else 448)
    np.testing.assert_allclose(scale, per_channel, rtol=1e-3)
    expected = quantized(torch.from_numpy(x)).numpy()
    specs = (
        [TensorSpec(name="x", dtype="float32", shape=x.shape)],
        [TensorSpec(name="y", dtype="float32", shape=expected.shape)],
    )
    with engine_from_onnx(tmp_path / "layer.onnx", "layer", *specs, OnnxOptions(optimise=False), axes={}) as engine:
        np.testing.assert_allclose(engine.infer({"x": x})["y"], expected, atol=1e-4)
    plain = layer(torch.from_numpy(x).clamp(-3, 3)).numpy()
    relative = np.linalg.norm(expected - plain) / np.linalg.norm(plain)
    assert relative < (0.02 if precision == "int8" else 0.08)


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_smoothing_changes_no_output(alpha: float) -> None:
    hidden = torch.from_numpy(named_noise("h", (4, 64, 4, 4), 0))
    audio = torch.from_numpy(named_noise("a", (4, 10, 24), 0))

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spatial = SpatialTransformer(64, 4, 8, 24)
            self.motion = MotionModule(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.motion(self.spatial(x, audio), 4)
            return out

    pair = seeded(Pair())
    before = pair(hidden)
    factors = {}
    for group in smoothing_groups(pair):
        largest = torch.from_numpy(np.abs(named_noise(group.name, (group.readers[0].in_features,), 0))) * 3
        factors[group.name] = smoothing_factors(group, largest, alpha)
        assert abs(np.log(factors[group.name]).mean()) < 0.05  # 0 but for the clamped ones
    # to_q of both attentions and of both temporal ones, their output projections, two feed-forwards, proj_in.
    assert len(factors) == 13
    q = pair.get_submodule("spatial.transformer_blocks.0.attn1.to_q").weight.clone()  # type: ignore[operator]
    fold(pair, factors)
    assert float((pair.get_submodule("spatial.transformer_blocks.0.attn1.to_q").weight - q).abs().max()) > 0.1  # type: ignore[operator]
    torch.testing.assert_close(pair(hidden), before, atol=2e-4, rtol=1e-4)


def test_the_least_square_error_clips_outliers() -> None:
    edges = torch.linspace(0, 100, 2001, dtype=torch.float64)
    counts = torch.exp(-0.5 * (edges[:-1] / 2) ** 2) * 1e6
    counts[-1] = 1.0
    assert 6 < _least_square_error(counts, edges, "int8") < 20


class _Two(GraphModule):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x)))
        return out


def test_coverage_is_read_from_the_graph() -> None:
    flops = {"first": 3.0, "second": 1.0}
    x = torch.from_numpy(named_noise("x", (2, 8), 0))

    def checked(quantized: tuple[str, ...], kept: dict[str, str]) -> float:
        module = _Two().eval().requires_grad_(False)
        for name in quantized:
            replace_layer(module, name, quantized_layer(module.get_submodule(name), 2.0, "int8"))
        recipe = Recipe(
            target="unet", precision="int8", method="max", ranges=dict.fromkeys(flops, 2.0), smoothing={}, kept=kept
        )
        return check_coverage("unet", trace(module, [x], ["x"], ["y"]), module, recipe, flops)

    assert checked(("first", "second"), {}) == 1.0
    assert checked(("first",), {"second": "asked for"}) == 0.75
    with pytest.raises(ExportError, match="second has its input not quantized and its weights not quantized"):
        checked(("first",), {})
    module = _Two()
    recipe = Recipe(target="unet", precision="fp8", method="max", ranges={"first": 1.0}, smoothing={}, kept={})
    apply_recipe(module, recipe)
    kinds = {name: type(layer) for name, layer in module.named_children()}
    assert kinds == {"first": QuantizedLinear, "second": nn.Linear}
