"""Sessions of ONNX Runtime: one for the lengths of a run, made again for others; what does not load says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lsx.core.tensors import TensorSpec
from lsx.engines.onnxruntime import OnnxOptions, default_threads, engine_from_onnx, session_loader
from lsx.errors import BackendUnavailable, EngineError, UsageError

INPUTS = [TensorSpec(name="x", dtype="float32", shape=("b", 3))]
OUTPUTS = [TensorSpec(name="y", dtype="float32", shape=("b", 3))]


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """A graph: y = x + x."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubled", [x], [y])
    path = tmp_path / "doubled.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
    return path


def test_other_lengths_are_served_by_another_session(doubled: Path) -> None:
    engine = engine_from_onnx(doubled, "doubled", INPUTS, OUTPUTS, axes={"b": 2})
    with engine:
        assert "CPUExecutionProvider" in engine.description
        first = engine._session
        for length in (2, 5, 5):
            x = np.random.default_rng(length).standard_normal((length, 3), np.float32)
            assert np.array_equal(engine.infer({"x": x})["y"], 2 * x)
        assert engine._session is not first
        assert engine._axes == {"b": 5}


def test_a_closed_engine_says_so(doubled: Path) -> None:
    engine = engine_from_onnx(doubled, "doubled", INPUTS, OUTPUTS)
    engine.close()
    with pytest.raises(EngineError, match="doubled: the engine is closed"):
        engine.infer({"x": np.zeros((2, 3), np.float32)})


def test_a_profile_is_a_file(doubled: Path, tmp_path: Path) -> None:
    options = OnnxOptions(threads=1, optimise=False, profile=tmp_path / "profile")
    engine = engine_from_onnx(doubled, "doubled", INPUTS, OUTPUTS, options)
    with engine:
        engine.infer({"x": np.zeros((2, 3), np.float32)})
        file = engine.end_profiling()
    assert file.parent == tmp_path
    assert '"Add"' in file.read_text()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (OnnxOptions(provider="rocm"), UsageError, "provider is rocm; choose one of cpu, cuda"),
        (OnnxOptions(provider="cuda"), BackendUnavailable, "has no CUDAExecutionProvider"),
    ],
)
def test_a_provider_that_is_not_there(doubled: Path, options: Any, error: type[Exception], said: str) -> None:
    import onnxruntime

    if options.provider in [name.lower()[:4] for name in onnxruntime.get_available_providers()]:
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(error, match=said):
        session_loader(doubled, "doubled", INPUTS, options)


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"broken\.onnx: ONNX Runtime cannot load it"):
        engine_from_onnx(tmp_path / "broken.onnx", "broken", INPUTS, OUTPUTS)


def test_there_are_no_cpu_kernels_for_bf16(doubled: Path) -> None:
    wide = [TensorSpec(name="x", dtype="bfloat16", shape=("b", 3))]
    with pytest.raises(EngineError, match="is bf16, for which ONNX Runtime has no CPU kernels"):
        engine_from_onnx(doubled, "doubled", wide, OUTPUTS)


def test_threads_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSX_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.setenv("LSX_THREADS", "all")
    with pytest.raises(UsageError, match="LSX_THREADS is all; give a whole number"):
        default_threads()
