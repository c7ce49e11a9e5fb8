"""bf16 graphs: checked as they were made, typed, and refused by a CPU in one line."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.engines.loading import load_engine
from lsx.errors import EngineError
from lsx.graphs.graph_specs import GRAPHS


@pytest.mark.parametrize("graph", [name for name in GRAPHS if name not in ("audio_encoder", "vae_decoder")])
def test_bf16(bundle: Callable[[Precision, int], Bundle], graph: str) -> None:
    opened = bundle("bf16", 64)
    entry = opened.graph(graph)
    assert all(parity.cosine > 0.999 for parity in entry.parity)
    assert any(tensor.dtype == "bfloat16" for tensor in (*entry.inputs, *entry.outputs))
    model = onnx.load(str(opened.path / entry.file.path), load_external_data=False)
    kinds = {w.data_type for w in model.graph.initializer if len(w.dims) > 1}
    assert kinds <= {TensorProto.BFLOAT16, TensorProto.FLOAT}
    with pytest.raises(EngineError, match="no CPU kernels"):
        load_engine(opened, graph)
