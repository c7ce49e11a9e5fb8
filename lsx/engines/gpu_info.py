"""The first GPU: what it is, asked so that a process which only looks may still fork; and CUDA's runtime API."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from lsx.errors import BackendUnavailable

__all__ = ["Gpu", "driver_runtime", "first_gpu"]

_TIMEOUT = 120.0  # seconds; a driver that has to wake its GPUs takes some


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's properties, those that decide which plans run on it."""

    name: str
    capability: tuple[int, int]
    """Compute capability, (major, minor)."""
    multiprocessors: int
    memory: int
    """Bytes."""
    driver: str
    """The newest CUDA that the driver supports, such as 13.0."""

    @property
    def description(self) -> str:
        """Describe it for people."""
        return f"{self.name} ({self.multiprocessors} SMs, {self.memory / 2**30:.0f} GiB)"


@lru_cache
def driver_runtime() -> Any:
    """`cuda.bindings.runtime`, once a device answers. Raises BackendUnavailable with the reason.

    TensorRT's own objects crash the process where there is no driver, so this is asked before any of them is used. It
    initialises CUDA: children that the process forks afterwards cannot use a GPU.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendUnavailable("cuda-bindings is not installed. Install it: pip install 'lsx[rtx]'") from error
    try:
        status, count = runtime.cudaGetDeviceCount()
    except RuntimeError as error:  # the CUDA libraries themselves are missing
        raise BackendUnavailable(f"no CUDA on this machine ({error})") from error
    if int(status) != 0 or count == 0:
        reason = f"CUDA error {int(status)}, {status.name}" if int(status) else "no device"
        raise BackendUnavailable(f"no GPU on this machine ({reason})")
    return runtime


def first_gpu() -> Gpu:
    """The first GPU that CUDA shows to this process. Raises BackendUnavailable where there is none.

    Where this process has not used CUDA yet a child is asked, so that it stays free to fork.
    """
    answer = _first_gpu()
    if isinstance(answer, str):
        raise BackendUnavailable(answer)
    return answer


@lru_cache
def _first_gpu() -> Gpu | str:
    """The GPU, or why there is none: asked once a process."""
    if driver_runtime.cache_info().currsize == 0 and _has_driver():
        answer = _ask_child()
        if answer is not None:
            return answer
    try:
        return _ask_here()
    except BackendUnavailable as error:
        return str(error)


def _has_driver() -> bool:
    """Whether the driver's library is there; where it is not, asking CUDA does no harm."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _ask_child() -> Gpu | str | None:
    """A child process's answer; None where none could be started, as in a host that is not Python's own program."""
    code = "from lsx.engines import gpu_info; gpu_info._print_answer()"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=_TIMEOUT, check=True)  # noqa: S603  (this very Python, and a constant)
        content = json.loads(done.stdout)
    except (OSError, TypeError, ValueError, subprocess.SubprocessError):
        return None
    if isinstance(content, str):
        return content
    return Gpu(**content | {"capability": tuple(content["capability"])})


def _print_answer() -> None:
    """What the child does."""
    try:
        print(json.dumps(asdict(_ask_here())))
    except BackendUnavailable as error:
        print(json.dumps(str(error)))


def _ask_here() -> Gpu:
    runtime = driver_runtime()
    status, properties = runtime.cudaGetDeviceProperties(0)
    if int(status) != 0:
        raise BackendUnavailable(f"the GPU does not answer (CUDA error {int(status)}, {status.name})")
    _status, number = runtime.cudaDriverGetVersion()
    name = properties.name
    return Gpu(
        name=name.decode().strip("\0") if isinstance(name, bytes) else str(name),
        capability=(int(properties.major), int(properties.minor)),
        multiprocessors=int(properties.multiProcessorCount),
        memory=int(properties.totalGlobalMem),
        driver=f"{number // 1000}.{number % 1000 // 10}",
    )
