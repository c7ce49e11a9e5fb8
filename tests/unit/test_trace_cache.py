"""Traces that are kept: known again by all that they follow from, and by no weight."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from lsx.export import trace_cache, tracing
from lsx.export.onnx_file import save_model
from lsx.export.trace_cache import TraceCache, fingerprint
from lsx.export.tracing import trace

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))


class _Net(nn.Module):
    """A weight, a buffer, a tensor that is neither, and a number."""

    def __init__(self, seed: int = 0, width: int = 4, eps: float = 1e-5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear, self.norm = nn.Linear(6, width), nn.LayerNorm(width, eps=eps)
        self.kept: Tensor
        self.register_buffer("kept", torch.rand(width))
        self.neither = torch.arange(float(width))
        self.scale = 2.0

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.linear(x) * self.kept)
        return normed * self.scale + self.neither


def _net(**settings: Any) -> _Net:
    return _Net(**settings).eval().requires_grad_(False)


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What torch traced, with a cache of the test's own."""
    monkeypatch.setenv("LSX_CACHE", str(tmp_path / "cache"))
    modules: list[nn.Module] = []
    sound = tracing._traced

    def counted(module: nn.Module, *rest: Any) -> ir.Model:
        modules.append(module)
        return sound(module, *rest)

    monkeypatch.setattr(tracing, "_traced", counted)
    return modules


def _bytes(module: nn.Module, folder: Path) -> bytes:
    save_model(trace(module, [X], ["x"], ["y"]), folder / "graph.onnx")
    return (folder / "graph.onnx").read_bytes()


def test_a_kept_trace_has_the_weights_of_the_module_at_hand(traced: list[nn.Module], tmp_path: Path) -> None:
    first, second = _net(seed=1), _net(seed=2)
    kept = _bytes(first, tmp_path)
    model = trace(second, [X], ["x"], ["y"])
    assert traced == [first]
    weight = model.graph.initializers["linear.weight"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), second.linear.weight.numpy())
    again = _bytes(second, tmp_path)
    assert again != kept
    for file in (tmp_path / "cache" / "traces").iterdir():
        file.unlink()
    assert _bytes(second, tmp_path) == again  # as traced anew, to the byte
    assert traced == [first, second]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precisions_too(traced: list[nn.Module], tmp_path: Path, dtype: torch.dtype) -> None:
    net, x = _net().to(dtype), X.to(dtype)
    net.neither = net.neither.to(dtype)
    made = []
    for _ in range(2):
        save_model(trace(net, [x], ["x"], ["y"]), tmp_path / "graph.onnx")
        made.append((tmp_path / "graph.onnx").read_bytes())
    assert len(traced) == 1
    assert made[0] == made[1]


def _key(module: nn.Module, x: Tensor = X, inputs: tuple[str, ...] = ("x",), dynamic: Any = None) -> str:
    return fingerprint(module, [x], inputs, ["y"], dynamic)


def test_what_a_trace_follows_from() -> None:
    key = _key(_net(seed=1))
    assert _key(_net(seed=2)) == key  # other weights, another buffer
    scaled, moved, subclass = _net(), _net(), type("_Other", (_Net,), {})().eval().requires_grad_(False)
    scaled.scale = 3.0
    moved.neither = moved.neither + 1
    others = {
        "a setting of a layer": _key(_net(eps=1e-6)),
        "a number": _key(scaled),
        "a tensor that is no weight": _key(moved),
        "a class": _key(subclass),
        "widths": _key(_net(width=5)),
        "the weights' type": _key(_net().half()),
        "training": _key(_net().train()),
        "the input's shape": _key(_net(), X[:1]),
        "the input's type": _key(_net(), X.half()),
        "names": _key(_net(), X, ("z",)),
        "an axis that varies": _key(_net(), X, ("x",), [{0: "n"}]),
    }
    assert key not in others.values()
    assert len({*others.values()}) == len(others)


def test_lsx_own_sources_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    key = _key(_net())
    monkeypatch.setattr(trace_cache, "version", lambda _: "another")
    trace_cache._sources.cache_clear()
    assert _key(_net()) != key
    monkeypatch.undo()
    trace_cache._sources.cache_clear()
    assert _key(_net()) == key


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda b: b[:-9], lambda b: b[:99] + b"X" + b[100:], lambda b: b[:32]]
)
def test_a_damaged_one_is_traced_anew(
    traced: list[nn.Module], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    sound = _bytes(_net(), tmp_path)
    (file,) = (tmp_path / "cache" / "traces").iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    assert _bytes(_net(), tmp_path) == sound
    assert len(traced) == 2
    assert len(file.read_bytes()) == len(content)


def test_a_folder_that_cannot_be_written_is_no_error(traced: list[nn.Module], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder goes")
    assert _bytes(_net(), tmp_path) == _bytes(_net(), tmp_path)
    assert len(traced) == 2


def test_without_a_home_folder_nothing_is_kept(
    traced: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("LSX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert _bytes(_net(), tmp_path) == _bytes(_net(), tmp_path)
    assert len(traced) == 2


def test_what_has_something_large_inside_is_not_kept(traced: list[nn.Module], tmp_path: Path) -> None:
    net = _net()
    net.neither = torch.zeros(2**19, 4)
    x = X[:1].expand(2**19, 6).contiguous()
    for _ in range(2):
        trace(net, [x], ["x"], ["y"])
    assert len(traced) == 2
    assert not (tmp_path / "cache" / "traces").exists()


def test_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_cache, "_KEPT", 2)
    cache, net = TraceCache(tmp_path), _net()
    model = tracing._traced(net, [X], ["x"], ["y"], None)
    for age, key in enumerate(("a", "b", "c")):
        cache.put(key, model, net)
        stamp = 1_000_000 + age
        for file in tmp_path.glob(f"{key}.trace"):
            os.utime(file, (stamp, stamp))
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["b", "c"]
    weight = model.graph.initializers["linear.weight"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), net.linear.weight.numpy())  # the model itself is left as it was
