"""Backends where nothing runs them: all that is missing is said at once, by every command in the same words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lsx.bench.contenders import chosen_backends
from lsx.bench.options import BenchOptions
from lsx.engines import onnxruntime
from lsx.engines.registry import EngineOptions, backend_named
from lsx.engines.tensorrt import backend as module
from lsx.engines.tensorrt import libraries
from lsx.engines.tensorrt.libraries import LIBRARIES
from lsx.errors import BackendUnavailable, EngineError

RTX = backend_named("tensorrt-rtx")


def bundle(*plans: str) -> Any:
    manifest = SimpleNamespace(plans=[SimpleNamespace(backend=name) for name in plans])
    return SimpleNamespace(manifest=manifest, path=Path("bundle"))


def absent(*_: object) -> Any:
    raise BackendUnavailable("no NVIDIA driver")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "first_gpu", absent)


@pytest.mark.usefixtures("no_gpu")
def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        LIBRARIES, "tensorrt-rtx", type("L", (), {"version": property(absent), "check_builds_here": absent})()
    )
    reasons = RTX.missing(bundle("tensorrt"))
    assert reasons[:2] == ["no NVIDIA driver"] * 2
    assert reasons[2] == "the bundle has no plans for it. Build them: lsx build bundle --backend tensorrt-rtx"
    assert RTX.missing(bundle("tensorrt-rtx")) == ["no NVIDIA driver"] * 2
    assert RTX.availability() == (False, "no NVIDIA driver; no NVIDIA driver")  # as lsx doctor says it
    with pytest.raises(BackendUnavailable, match=r"^tensorrt-rtx does not run bundle here: (no NVIDIA driver; ){2}"):
        RTX.check(bundle())


@pytest.mark.usefixtures("no_gpu")
def test_a_library_without_a_gpu_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIBRARIES, "tensorrt-rtx", SimpleNamespace(version="1.7", check_builds_here=lambda: None))
    assert RTX.availability() == (False, "1.7 builds plans here, but does not run them: no NVIDIA driver")
    monkeypatch.setattr(module, "first_gpu", lambda: SimpleNamespace(name="RTX 5090"))
    assert RTX.availability() == (True, "1.7 on RTX 5090")


def test_a_provider_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "first_gpu", absent)
    backend = backend_named("onnxruntime")
    backend.check(bundle(), EngineOptions())
    for load in (backend.check, lambda one, options: backend.engine(one, "unet", options)):
        with pytest.raises(BackendUnavailable, match=r"bundle here: this onnxruntime has no CUDA.*; no NVIDIA driver$"):
            load(bundle(), EngineOptions(provider="cuda"))


def test_a_bench_and_a_build_say_it_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (module, libraries, onnxruntime):
        monkeypatch.setattr(one, "first_gpu", absent)
    with pytest.raises(BackendUnavailable, match=r"^tensorrt does not run bundle here: .*; no NVIDIA driver; the bund"):
        chosen_backends([bundle()], BenchOptions(backends=("tensorrt",)))
    with pytest.raises(BackendUnavailable, match=r"no NVIDIA driver$"):
        chosen_backends([bundle()], BenchOptions(backends=("onnxruntime",), provider="cuda"))
    with pytest.raises(BackendUnavailable, match=r"^tensorrt does not build here: tensorrt is not .*; no NVIDIA drive"):
        LIBRARIES["tensorrt"].check_builds_here()


def test_graphs_without_plans_are_another_backends() -> None:
    assert [RTX.supports(graph) for graph in ("unet", "step", "face_detector")] == [True, True, False]
    with pytest.raises(EngineError, match="face_detector has no plans; it runs on onnxruntime"):
        RTX.engine(bundle(), "face_detector", EngineOptions())
