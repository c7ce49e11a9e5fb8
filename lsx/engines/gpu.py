"""Whether there is a GPU, asked in a way that is safe where there is no driver."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lsx.errors import BackendUnavailable

__all__ = ["compute_capability", "driver_runtime", "driver_version", "gpu_name"]


@lru_cache
def driver_runtime() -> Any:
    """`cuda.bindings.runtime`, once a device answers. Raises BackendUnavailable with the reason.

    TensorRT's own objects crash the process where there is no driver, so this is asked before any of them is used.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendUnavailable("cuda-python is not installed. Install it: pip install 'lsx[rtx]'") from error
    try:
        status, count = runtime.cudaGetDeviceCount()
    except RuntimeError as error:  # the CUDA libraries themselves are missing
        raise BackendUnavailable(f"no CUDA on this machine ({error})") from error
    if int(status) != 0 or count == 0:
        reason = f"CUDA error {int(status)}, {status.name}" if int(status) else "no device"
        raise BackendUnavailable(f"no GPU on this machine ({reason})")
    return runtime


def compute_capability() -> tuple[int, int]:
    """(major, minor) of the first GPU. Raises BackendUnavailable where there is none."""
    properties = _properties()
    return int(properties.major), int(properties.minor)


def gpu_name() -> str:
    """The first GPU's name. Raises BackendUnavailable where there is none."""
    name = _properties().name
    return name.decode().strip("\0") if isinstance(name, bytes) else str(name)


def driver_version() -> str:
    """The newest CUDA that the driver supports, such as 13.0. Raises BackendUnavailable where there is no GPU."""
    _status, number = driver_runtime().cudaDriverGetVersion()
    return f"{number // 1000}.{number % 1000 // 10}"


@lru_cache
def _properties() -> Any:
    runtime = driver_runtime()
    status, properties = runtime.cudaGetDeviceProperties(0)
    if int(status) != 0:
        raise BackendUnavailable(f"the GPU does not answer (CUDA error {int(status)}, {status.name})")
    return properties
