"""`make gpu-kit`: all that an offline machine with a GPU needs, in one archive.

python -m scripts.gpu.kit [-o gpu-kit.tar] [--python 3.12] [--wheels DIR | --no-wheels]
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

__all__ = ["main"]

EXTRAS = "dev,export,rtx"

_INSTALL = """#!/usr/bin/env bash
# Installs lsx from the wheels beside this file, without a network, and runs the first hour on a GPU.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
PYTHONPATH=lsx "$python" -m scripts.gpu --check
"$python" -m venv venv
venv/bin/python -m pip install --no-index --find-links wheels -e 'lsx[EXTRAS]'
venv/bin/python -m pip install --no-index --find-links wheels tensorrt || echo "without TensorRT: RTX's alone"
cd lsx
exec ../venv/bin/python -m scripts.gpu -o ../gpu-report "$@"
""".replace("EXTRAS", EXTRAS)


def main(arguments: list[str] | None = None) -> int:
    """Write the archive."""
    parser = argparse.ArgumentParser(prog="make gpu-kit", description="Pack lsx for an offline machine with a GPU.")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu-kit.tar"))
    parser.add_argument("--python", default="3.12", help="the GPU machine's Python: 3.11 or 3.12")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to pack instead of downloading them")
    parser.add_argument("--no-wheels", action="store_true", help="pack the source alone")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        wheels = given.wheels
        if wheels is None and not given.no_wheels:
            wheels = Path(folder)
            _download(wheels, given.python)
        partial = given.output.with_name(f".{given.output.name}.part")
        try:
            with tarfile.open(partial, "w") as archive:
                _pack(archive, wheels)
            partial.replace(given.output)
        finally:
            partial.unlink(missing_ok=True)
    size = given.output.stat().st_size / 2**20
    print(f"{given.output}: {size:.0f} MiB. On the GPU machine: tar xf {given.output.name} && gpu-kit/run.sh")
    return 0


def _download(folder: Path, version: str) -> None:
    """Wheels for Linux on x86-64, PyTorch's CUDA build among them: some gigabytes."""
    platforms = [f"--platform={name}" for name in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "linux_x86_64")]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-d",
        str(folder),
        "--only-binary=:all:",
        "-c",
        "constraints.txt",
    ]
    needs = ["setuptools>=77", "wheel", f".[{EXTRAS}]"]
    command += [f"--python-version={version}", *platforms]
    subprocess.run([*command, *needs], check=True)  # noqa: S603
    tensorrt = subprocess.run([*command, "tensorrt>=10.14"], check=False)  # noqa: S603  (not on every index)
    if tensorrt.returncode != 0:
        print("tensorrt's wheels are not to be had here: the kit has TensorRT-RTX alone", file=sys.stderr)


def _pack(archive: tarfile.TarFile, wheels: Path | None) -> None:
    files = subprocess.run(["git", "ls-files", "-z"], stdout=subprocess.PIPE, check=True)  # noqa: S607
    for name in sorted(filter(None, files.stdout.decode().split("\0"))):
        if Path(name).is_file():
            archive.add(name, f"gpu-kit/lsx/{name}")
    for wheel in sorted(wheels.glob("*")) if wheels is not None else ():
        archive.add(wheel, f"gpu-kit/wheels/{wheel.name}")
    script = tarfile.TarInfo("gpu-kit/run.sh")
    script.mode, script.size = 0o755, len(_INSTALL.encode())
    archive.addfile(script, io.BytesIO(_INSTALL.encode()))


if __name__ == "__main__":
    sys.exit(main())
