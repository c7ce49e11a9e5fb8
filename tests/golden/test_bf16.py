"""bf16 graphs: exported, checked, typed, and refused by a CPU in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from lsx.engines.onnxruntime import engine_from_onnx
from lsx.errors import EngineError
from lsx.export.exporter import _Exporter
from lsx.export.graphs import GRAPHS
from lsx.models.checkpoint import Checkpoint, CheckpointFiles


@pytest.mark.parametrize("graph", ["vae_encoder", "unet_shallow", "step"])
def test_bf16(checkpoint: Callable[[int], Path], tmp_path: Path, graph: str) -> None:
    (tmp_path / "onnx").mkdir()
    exporter = _Exporter(Checkpoint(CheckpointFiles.in_folder(checkpoint(128))), tmp_path, "bf16")
    entry = exporter.graph(GRAPHS[graph], lambda _: None)
    assert all(parity.cosine > 0.999 for parity in entry.parity)
    assert any(tensor.dtype == "bfloat16" for tensor in (*entry.inputs, *entry.outputs))
    path = tmp_path / entry.file.path
    model = onnx.load(str(path), load_external_data=False)
    kinds = {w.data_type for w in model.graph.initializer if len(w.dims) > 1}
    assert kinds <= {TensorProto.BFLOAT16, TensorProto.FLOAT}
    with pytest.raises(EngineError, match="no CPU kernels"):
        engine_from_onnx(path, graph, [t.spec() for t in entry.inputs], [t.spec() for t in entry.outputs])
