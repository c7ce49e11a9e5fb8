"""Whether this machine has an NVIDIA GPU, by the driver alone: before anything large is installed."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["gpus"]


def gpus() -> list[str]:
    """Names of the GPUs. Raises RuntimeError with the reason where there is none."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise RuntimeError(f"no NVIDIA driver on this machine ({error})") from error
    status = cuda.cuInit(0)
    if status != 0:
        raise RuntimeError(f"the NVIDIA driver does not start (cuInit gives {status})")
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        raise RuntimeError("the NVIDIA driver shows no GPU to this process")
    names = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, len(name), index)
        names.append(name.value.decode(errors="replace"))
    return names
