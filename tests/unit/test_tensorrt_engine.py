"""TensorRT's engines and contexts on stubs of the library's objects: sharing, profiles, failures. It needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lsx.core.tensors import TensorSpec
from lsx.engines.tensorrt import backend as backend_module
from lsx.engines.tensorrt.backend import RtxBackend
from lsx.engines.tensorrt.engine import TensorRtContext, TensorRtEngine
from lsx.engines.tensorrt.libraries import LIBRARIES
from lsx.engines.tensorrt.loaded_plan import LoadedPlan
from lsx.errors import DeviceLost, EngineError, StaleEngine
from tests.simulated_device import SimulatedDevice
from tests.unit.test_cuda_device import A_GPU


class Execution:
    """What `IExecutionContext` is to a context."""

    def __init__(self, failing: str = "") -> None:
        self.active_optimization_profile = 0
        self.failing = failing
        self.shapes: dict[str, list[int]] = {}
        self.memory: tuple[int, int] | None = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        del stream
        self.active_optimization_profile = index
        return self.failing != "profile"

    def set_input_shape(self, name: str, shape: list[int]) -> bool:
        self.shapes[name] = shape
        return self.failing != "shape"

    def update_device_memory_size_for_shapes(self) -> int:
        return 100 * self.shapes["sample"][0]

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = address, size

    def set_tensor_address(self, name: str, address: int) -> bool:
        return bool(name and address) and self.failing != "address"

    def execute_async_v3(self, stream: int) -> bool:
        return bool(stream) and self.failing != "run"


class CudaEngine:
    """What `ICudaEngine` is to an engine."""

    num_io_tensors = 2
    num_optimization_profiles = 2

    def get_tensor_name(self, index: int) -> str:
        return ("sample", "noise_pred")[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        del name
        return (-1, 8)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return (200, 100)[index]


class Loaded(LoadedPlan):
    """A plan that is loaded without a library."""

    loads = 0
    failing = ""

    def __init__(self, library: Any, bundle: Any, plan: Any, device: Any) -> None:
        del bundle
        Loaded.loads += 1
        self._library, self._plan, self._device, self._users = library, plan, device, 0
        self._key = (library.backend, plan.file.sha256)
        self._cache = self._config = None
        self.logger = type("Logger", (), {"last": "the library's reason"})()
        self.engine: Any = CudaEngine()
        self._runtime: Any = None

    def new_context(self) -> Any:
        return Execution(self.failing)


class Device(SimulatedDevice):
    lost = False

    def check(self) -> None:
        if self.lost:
            raise DeviceLost("the device is lost")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> type[Loaded]:
    monkeypatch.setattr("lsx.engines.tensorrt.engine.LoadedPlan", Loaded)
    monkeypatch.setattr(Loaded, "loads", 0)
    monkeypatch.setattr(Loaded, "failing", "")
    monkeypatch.setattr(LoadedPlan, "_shared", {})
    return Loaded


class _Plan:
    graph, target, key = "unet", "sm90", "key"
    profiles: tuple[Mapping[str, tuple[int, int, int]], ...] = ({"b": (2, 2, 2)}, {"b": (1, 1, 1)})
    backend = "tensorrt"
    options: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, sha256: str = "a" * 64) -> None:
        self.file = type("File", (), {"path": "plans/unet.plan", "sha256": sha256, "size": 1})()


def _engine(device: SimulatedDevice, sha256: str = "a" * 64) -> TensorRtEngine:
    from pathlib import Path

    bundle: Any = type("Bundle", (), {"path": Path("bundle")})()
    plan: Any = _Plan(sha256)
    inputs = [TensorSpec(name="sample", dtype="float16", shape=("b", 8))]
    outputs = [TensorSpec(name="noise_pred", dtype="float16", shape=("b", 8))]
    return TensorRtEngine(LIBRARIES["tensorrt"], bundle, plan, inputs, outputs, device)


def test_engines_of_one_plan_share_its_weights(loaded: type[Loaded]) -> None:
    device = Device()
    first, second, other = _engine(device), _engine(device), _engine(device, "b" * 64)
    assert loaded.loads == 2
    assert first.loaded is second.loaded
    assert first.loaded is not other.loaded
    first.close()
    first.close()  # once more is nothing
    assert len(LoadedPlan._shared) == 2
    second.context({"b": 2}).close()
    with pytest.raises(EngineError, match="closed"):
        first.context({"b": 2})
    second.close()
    other.close()
    assert not LoadedPlan._shared
    _engine(device)
    assert loaded.loads == 3


@pytest.mark.usefixtures("loaded")
def test_a_context_keeps_its_profile_and_lengths() -> None:
    engine = _engine(Device())
    with_guidance, without = engine.context({"b": 2, "F": 16}), engine.context({"b": 1, "F": 16})
    for context, profile, batch in ((with_guidance, 0, 2), (without, 1, 1)):
        execution: Any = context._execution
        assert execution.active_optimization_profile == profile
        assert execution.shapes == {"sample": [batch, 8]}
        assert context.activation_bytes == 100 * batch
    assert with_guidance._execution is not without._execution
    assert engine.activation_bytes == 200
    with pytest.raises(StaleEngine, match="not built for b = 3"):
        engine.context({"b": 3})


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("profile", "unet: no switch to profile 1 of its plan: the library's reason"),
        ("shape", r"unet: sample cannot be \[1, 8\]: the library's reason"),
        ("address", "unet: sample cannot lie at 0x100: the library's reason"),
        ("run", "unet: tensorrt failed: the library's reason"),
    ],
)
def test_failures_are_told(loaded: type[Loaded], failing: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "failing", failing)
    device = Device()
    engine = _engine(device)

    def run() -> TensorRtContext:
        context = engine.context({"b": 1})
        context.enqueue({"sample": 256, "noise_pred": 512}, device.stream())
        return context

    with pytest.raises(EngineError, match=message):
        run()
    device.lost = True
    with pytest.raises(DeviceLost):
        run()


def test_looking_at_a_bundle_initialises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may look which backend fits, and fork its workers then."""

    def initialises() -> None:
        raise AssertionError("CUDA was initialised")

    monkeypatch.setattr(backend_module, "shared_device", initialises)
    monkeypatch.setattr("lsx.engines.gpu_info.driver_runtime", initialises)
    monkeypatch.setattr("lsx.engines.gpu_info._first_gpu", lambda: A_GPU)
    monkeypatch.setattr("lsx.engines.tensorrt.libraries._imported", lambda *_: type("M", (), {"__version__": "1.7"}))
    bundle: Any = type("Bundle", (), {"path": "bundle", "manifest": type("Manifest", (), {"plans": ()})})
    assert "no tensorrt-rtx plan of" in str(RtxBackend().reason_unsupported(bundle))
    works, told = RtxBackend().availability()
    assert works
    assert "H100" in told
