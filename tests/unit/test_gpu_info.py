"""The first GPU, told through a fake of CUDA's runtime API and without one."""

from __future__ import annotations

from typing import Any

import pytest

from lsx.engines import gpu_info
from lsx.errors import BackendUnavailable


def test_in_words() -> None:
    gpu = gpu_info.Gpu("NVIDIA L40S", (8, 9), 142, 48 * 2**30, "13.0")
    assert gpu.description == "NVIDIA L40S (142 SMs, 48 GiB)"


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    gpu_info.driver_runtime.cache_clear()
    gpu_info._first_gpu.cache_clear()
    yield
    gpu_info.driver_runtime.cache_clear()
    gpu_info._first_gpu.cache_clear()


def test_the_reason_is_told_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def runtime() -> Any:
        asked.append(1)
        raise BackendUnavailable("no GPU on this machine (no device)")

    monkeypatch.setattr(gpu_info, "_ask_here", runtime)
    monkeypatch.setattr(gpu_info, "_has_driver", lambda: False)
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="no device"):
            gpu_info.first_gpu()
    assert asked == [1]


def test_a_child_is_asked_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    known = gpu_info.Gpu("NVIDIA H100", (9, 0), 132, 80 * 2**30, "13.0")
    monkeypatch.setattr(gpu_info, "_has_driver", lambda: True)
    monkeypatch.setattr(gpu_info, "_ask_child", lambda: known)
    assert gpu_info.first_gpu() is known
