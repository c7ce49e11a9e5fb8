"""What this machine has: versions, GPU, memory, disk, backends."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lsx
from lsx.core.host_memory import available_bytes
from lsx.engines.registry import backend_named, backend_names
from lsx.errors import LsxError

__all__ = ["backends", "driver", "gpu", "system_info"]

_LIBRARIES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "av",
    "opencv-python-headless",
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "tensorrt",
    "tensorrt-rtx-cu13-libs",
    "cuda-bindings",
)


def system_info(folder: Path) -> list[tuple[str, str]]:
    """(name, value) of the machine; free disk is that of `folder`."""
    rows = [
        ("lsx", lsx.__version__),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("CPU", _cpu()),
    ]
    rows += [(name, _version(name)) for name in _LIBRARIES]
    while not folder.exists():
        folder = folder.absolute().parent
    rows += [
        ("GPU", gpu()),
        ("driver", driver()),
        ("free memory", _free_memory()),
        ("free disk", f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"),
    ]
    return rows


def backends() -> list[tuple[str, bool, str]]:
    """(name, whether it works here, version or reason) of every backend."""
    rows = []
    for name in backend_names():
        try:
            works, detail = backend_named(name).availability()
        except LsxError as error:
            works, detail = False, str(error)
        rows.append((name, works, detail))
    return rows


def gpu() -> str:
    """The NVIDIA driver's GPUs, or that there is none."""
    listing = Path("/proc/driver/nvidia/gpus")
    if not listing.is_dir():
        return "none (no NVIDIA driver)"
    names = []
    for information in sorted(listing.glob("*/information")):
        lines = dict(line.split(":", 1) for line in information.read_text().splitlines() if ":" in line)
        names.append(lines.get("Model", "NVIDIA GPU").strip())
    return ", ".join(names) or "none (driver without devices)"


def driver() -> str:
    """The NVIDIA driver's version, or that there is none."""
    file = Path("/proc/driver/nvidia/version")
    words = file.read_text().split() if file.is_file() else []
    return next((word for word in words if word[0].isdigit() and "." in word), "none")


def _cpu() -> str:
    """Its name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _free_memory() -> str:
    free = available_bytes()
    return "unknown on this system" if free is None else f"{free / 2**30:.1f} GiB"
