"""What ONNX Runtime leaves on the CPU is noticed. On its own account of a session, which is the same on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from lsx.engines.onnxruntime import OnnxOptions, heavy_nodes_elsewhere, session_loader
from lsx.errors import BackendUnavailable

SHAPE = [1, 8, 64]


@pytest.fixture
def attention(tmp_path: Path) -> Path:
    """Attention of opset 23 over reshaped tensors."""
    q, k, v, o = (helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in "qkvo")
    nodes = [
        helper.make_node("Reshape", ["q", "shape"], ["q2"]),
        helper.make_node("Attention", ["q2", "k", "v"], ["o"], q_num_heads=8, kv_num_heads=8),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], SHAPE)
    graph = helper.make_graph(nodes, "attention", [q, k, v], [o], [shape])
    path = tmp_path / "attention.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, path)
    return path


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_heavy_nodes_elsewhere(attention: Path) -> None:
    assignment = _session(attention).get_provider_graph_assignment_info()
    assert heavy_nodes_elsewhere(assignment, "CPUExecutionProvider") == []
    # A provider that took nothing: the reshape is none's business, the attention is.
    assert heavy_nodes_elsewhere(assignment, "CUDAExecutionProvider") == ["Attention (1)"]


def test_a_session_with_attention_on_the_cpu_is_refused(attention: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu 1.24 gives: the CUDA provider is there, and attention has no kernel of it."""
    session = _session(attention)

    class Falling:
        get_provider_graph_assignment_info = staticmethod(session.get_provider_graph_assignment_info)

        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Falling)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    load = session_loader(attention, "unet", [], OnnxOptions(provider="cuda"))
    with pytest.raises(BackendUnavailable, match=r"unet: .* no CUDA kernel for Attention .1..*onnxruntime-gpu>=1\.25"):
        load({})
    monkeypatch.delattr(Falling, "get_provider_graph_assignment_info")
    with pytest.raises(BackendUnavailable, match=r"is older than 1\.25"):
        load({})
