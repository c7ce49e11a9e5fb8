"""Tracing: half of it left out where that changes nothing, all of it where something would be lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter import _fx_passes

from lsx.export.onnx_file import save_model
from lsx.export.trace_cache import TraceCache
from lsx.export.tracing import trace
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.precision import to_precision, torch_dtype
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles


class _Casts(nn.Module):
    """Casts to another type and to its own, lengths that are inferred, and an axis that is flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Linear(6, 4)
        self.kept: Tensor
        self.register_buffer("kept", torch.arange(6.0))

    def forward(self, x: Tensor) -> Tensor:
        halves = x.to(torch.float16).to(torch.float32) * self.kept.to(torch.float32)
        mixed: Tensor = self.mixed(halves.view(2, -1, 6))
        return mixed.flatten(1).reshape(-1, 4)


class _Turned(_Casts):
    """With an operator that ONNX has not: it must be taken apart."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - super().forward(x)


class _InPlace(_Casts):
    """With one that writes into a tensor that is read again."""

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        part = result[:1]
        part.add_(3.0)
        return result


@pytest.fixture
def taken_apart(monkeypatch: pytest.MonkeyPatch) -> list[torch.export.ExportedProgram]:
    """The programs that torch traced a second time."""
    monkeypatch.setattr(TraceCache, "get", lambda *_: None)
    programs: list[torch.export.ExportedProgram] = []
    decompose = _fx_passes.decompose_with_registry

    def counted(program: torch.export.ExportedProgram, registry: Any) -> Any:
        programs.append(program)
        return decompose(program, registry)

    monkeypatch.setattr(_fx_passes, "decompose_with_registry", counted)
    return programs


@pytest.mark.parametrize(("kind", "times"), [(_Casts, 0), (_Turned, 1), (_InPlace, 1)])
def test_a_graph_computes_what_its_module_does(
    tmp_path: Path, taken_apart: list[Any], kind: type[_Casts], times: int
) -> None:
    torch.manual_seed(7)
    module, x = kind().eval().requires_grad_(False), torch.randn(2, 3, 6)
    model = trace(module, [x], ["x"], ["y"])
    assert len(taken_apart) == times
    save_model(model, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx")
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], module(x).numpy(), rtol=1e-6, atol=1e-6)
    assert "kept" in model.graph.initializers  # under its own name, by which it is changed and compared
    for node in model.graph:
        if node.op_type == "Reshape":
            assert node.inputs[1] is not None
            assert node.inputs[1].const_value is not None
            assert (node.inputs[1].const_value.numpy() > 0).all()


def test_none_of_lsx_graphs_is_traced_twice(checkpoint: Callable[[int], Path], taken_apart: list[Any]) -> None:
    loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint(64)))
    for name in ("audio_encoder", "vae_encoder", "unet_shallow", "step", "vae_decoder"):
        spec = GRAPHS[name]
        module = spec.build(loaded).eval().requires_grad_(False)
        to_precision(module, name, "fp16")
        feed = spec.example_inputs(loaded.spec, module, 2)
        arguments = [
            torch.from_numpy(array).to(torch_dtype("fp16" if key in spec.graph_dtype_tensors else "fp32"))
            if array.dtype == np.float32
            else torch.from_numpy(array)
            for key, array in feed.items()
        ]
        trace(module, arguments, list(feed), spec.outputs)
        assert not taken_apart, name
