"""CUDA's calls, on a stub of the runtime API with the real one's names, flags and errors: it needs no GPU."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from lsx.engines import cuda_device
from lsx.engines import gpu_info as gpu
from lsx.engines.cuda_device import RUNTIME_CALLS, CudaDevice
from lsx.engines.gpu_info import Gpu
from lsx.errors import BackendUnavailable, DeviceLost, EngineError, OutOfDeviceMemory

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings has no wheel for this system")


class Runtime:
    """The runtime API's names; its calls answer what a test wants, and are kept."""

    def __init__(self, **answers: tuple[Any, ...]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(runtime, name)
        if name not in RUNTIME_CALLS or name == "cudaGetErrorString":
            return real

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, arguments))
            return self.answers.get(name, (runtime.cudaError_t.cudaSuccess, 4096))

        return call


def _device(monkeypatch: pytest.MonkeyPatch, **answers: tuple[Any, ...]) -> tuple[CudaDevice, Runtime]:
    stub = Runtime(cudaSetDevice=(runtime.cudaError_t.cudaSuccess,), **answers)
    monkeypatch.setattr(cuda_device, "driver_runtime", lambda: stub)
    return CudaDevice(), stub


def test_the_list_of_calls_is_what_is_called() -> None:
    source = inspect.getsource(cuda_device) + inspect.getsource(gpu)
    called = set(re.findall(r"runtime\.(cuda\w+)\(", source))
    called |= set(re.findall(r"runtime\.(cudaFree\w*)", source))  # one of two is chosen
    assert called == set(RUNTIME_CALLS)
    assert all(callable(getattr(runtime, name)) for name in RUNTIME_CALLS)


def test_a_thread_that_waits_for_an_event_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    device, stub = _device(monkeypatch)
    device.event()
    device.event(timed=True)
    flags = [arguments[0] for name, arguments in stub.calls if name == "cudaEventCreateWithFlags"]
    assert flags == [runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming, runtime.cudaEventBlockingSync]


@pytest.mark.parametrize("name", ["cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorECCUncorrectable"])
def test_a_device_that_is_lost_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    status = getattr(runtime.cudaError_t, name)
    device, _ = _device(
        monkeypatch,
        cudaEventSynchronize=(status,),
        cudaMalloc=(status, 0),
        cudaHostAlloc=(status, 0),
        cudaGetLastError=(status,),
    )
    for attempt in (
        lambda: device.synchronise(device.event()),
        lambda: device.allocate(1),
        lambda: device.allocate_pinned(1),
        device.check,
    ):
        with pytest.raises(DeviceLost, match=rf"{name}\).*restart the process"):
            attempt()


def test_an_error_that_passes_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = runtime.cudaError_t
    device, _ = _device(
        monkeypatch,
        cudaEventSynchronize=(errors.cudaErrorInvalidValue,),
        cudaMalloc=(errors.cudaErrorMemoryAllocation, 0),
        cudaMemGetInfo=(errors.cudaSuccess, 3 * 2**20, 2**30),
        cudaGetLastError=(errors.cudaErrorInvalidValue,),
    )
    with pytest.raises(EngineError, match="cudaErrorInvalidValue") as raised:
        device.synchronise(device.event())
    assert not isinstance(raised.value, DeviceLost)
    with pytest.raises(OutOfDeviceMemory, match=r"2 MiB of GPU memory could not be had .3 MiB are free"):
        device.allocate(2**21)
    device.check()


@pytest.fixture
def unasked() -> Any:
    gpu._first_gpu.cache_clear()
    yield
    gpu._first_gpu.cache_clear()


A_GPU = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 80 * 2**30, "13.0")


@pytest.mark.usefixtures("unasked")
def test_a_gpu_is_asked_for_by_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process stays without CUDA, so that children which it forks may use the GPU."""

    def initialises() -> None:
        raise AssertionError("CUDA was initialised")

    monkeypatch.setattr(gpu, "_has_driver", lambda: True)
    monkeypatch.setattr(gpu, "_ask_here", initialises)
    monkeypatch.setattr(gpu, "_ask_child", lambda: A_GPU)
    assert gpu.first_gpu() is A_GPU


@pytest.mark.usefixtures("unasked")
def test_a_child_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_has_driver", lambda: True)
    monkeypatch.setattr(gpu, "_ask_here", lambda: A_GPU)
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    assert gpu.first_gpu() is A_GPU


def test_what_the_child_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "_ask_here", lambda: A_GPU)
    gpu._print_answer()
    said = capsys.readouterr().out
    done = type("Done", (), {"stdout": said.encode()})
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    assert gpu._ask_child() == A_GPU


def test_a_real_child() -> None:
    """It tells of this machine's GPU, or in one line why there is none."""
    try:
        here: object = gpu._ask_here()
    except BackendUnavailable as error:
        here = str(error)
    assert gpu._ask_child() == here
