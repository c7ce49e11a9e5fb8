"""What the machine can do, at best: matrix product and copy, measured beside what is benched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from lsx.bench.timing import borrowed, copy_seconds, repeated
from lsx.engines.device import Device

__all__ = ["Peaks", "device_peaks", "host_peaks"]

_EDGE_HOST, _EDGE_DEVICE = 2048, 8192
_COPIED_HOST, _COPIED_DEVICE = 2**28, 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The most that is reached per second; bytes count what is read and what is written."""

    flops: float | None
    bytes: float
    how: str


def host_peaks() -> Peaks:
    """The CPU's, float32: PyTorch's product where it is installed (oneDNN), else NumPy's."""
    n = _EDGE_HOST
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    out = np.empty((n, n), np.float32)
    source, target = np.zeros(_COPIED_HOST, np.uint8), np.zeros(_COPIED_HOST, np.uint8)
    product: Callable[[], object] = partial(np.matmul, a, b, out)
    copy: Callable[[], object] = partial(np.copyto, target, source)
    library = "NumPy, copied by one core"
    try:
        import torch
    except ImportError:
        pass
    else:
        x, y, z = (torch.from_numpy(array) for array in (a, b, out))
        product = partial(torch.matmul, x, y, out=z)
        copy = partial(torch.from_numpy(target).copy_, torch.from_numpy(source))
        library = f"PyTorch, {torch.get_num_threads()} threads"
    return Peaks(
        flops=2 * n**3 / min(repeated(product, 12)),
        bytes=2 * _COPIED_HOST / min(repeated(copy, 5)),
        how=f"float32 product of {n} x {n} and copy of {_COPIED_HOST / 2**20:.0f} MiB by {library}",
    )


def device_peaks(device: Device) -> Peaks:
    """The GPU's: a float16 product where PyTorch with CUDA is there to make it, and a copy by the driver."""
    device.enter()
    with borrowed(device, _COPIED_DEVICE, device.allocate, device.allocate) as (source, target):
        seconds = copy_seconds(device, target.address, source.address, _COPIED_DEVICE, 5)
    flops, how = _torch_product()
    return Peaks(
        flops=flops, bytes=2 * _COPIED_DEVICE / min(seconds), how=f"{how}, copy of {_COPIED_DEVICE / 2**20:.0f} MiB"
    )


def _torch_product() -> tuple[float | None, str]:
    try:
        import torch
    except ImportError:
        return None, "no product: it needs PyTorch with CUDA"
    if not torch.cuda.is_available():
        return None, "no product: it needs PyTorch with CUDA"
    n = _EDGE_DEVICE
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.empty(n, n, device="cuda", dtype=torch.float16)
    rates = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        torch.matmul(a, b, out=out)
        end.record()
        end.synchronize()
        rates.append(start.elapsed_time(end) / 1e3)
    return 2 * n**3 / min(rates), f"float16 product of {n} x {n} by PyTorch"
