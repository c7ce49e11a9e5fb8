"""Backends by name, best first."""

from __future__ import annotations

import pytest

from lsx.engines.onnxruntime import OnnxRuntimeBackend
from lsx.engines.registry import EngineOptions, backend_named, backend_names
from lsx.errors import UsageError


def test_all_are_there_best_first() -> None:
    assert backend_names() == ["tensorrt", "tensorrt-rtx", "onnxruntime", "torch"]
    assert isinstance(backend_named("onnxruntime"), OnnxRuntimeBackend)


def test_an_unknown_one_names_the_choices() -> None:
    with pytest.raises(UsageError, match="choose one of auto, tensorrt, tensorrt-rtx, onnxruntime, torch"):
        backend_named("openvino")


def test_options_are_values() -> None:
    assert EngineOptions(threads=2) == EngineOptions(threads=2)
    with pytest.raises(AttributeError):
        EngineOptions().threads = 3  # type: ignore[misc]
