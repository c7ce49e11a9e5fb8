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

from lsx.core.cache_folder import cache_folder
from lsx.errors import ExportError
from lsx.export.face_models.models import find_face_models

__all__ = ["main"]

EXTRAS = "dev,export,rtx"

_INSTALL = """#!/usr/bin/env bash
# Installs lsx from the wheels beside this file, without a network, and runs the first hour on a GPU.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
PYTHONPATH=lsx "$python" -m scripts.gpu --check
"$python" -m venv --system-site-packages venv
venv/bin/python -m pip install --no-index --find-links wheels -e 'lsx[EXTRAS]'
venv/bin/python -m pip install --no-index --find-links wheels tensorrt || echo "without TensorRT: RTX's alone"
export LSX_CACHE=$PWD/cache
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
    """Wheels for Linux on x86-64: what CI pins, and PyTorch's CUDA build and TensorRT where pip can get them."""
    minors = (34, 31, 28, 27, 26, 24, 17, 12, 5)  # pip takes no wheel of one for another
    names = [f"manylinux_2_{minor}_x86_64" for minor in minors]
    names += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-d", str(folder), "--only-binary=:all:"]
    command += [f"--python-version={version}", *(f"--platform={name}" for name in names)]
    pins = [line.split("#")[0].strip() for line in Path("constraints.txt").read_text().splitlines()]
    pinned = [pin for pin in pins if pin and not pin.startswith("torch==")]
    done = subprocess.run([*command, "--no-deps", "setuptools>=77", "wheel", *pinned], check=False)  # noqa: S603
    if done.returncode != 0:
        raise SystemExit("gpu-kit: pip could not get every wheel (above); have them elsewhere, and give --wheels DIR")
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    for name in (torch, "tensorrt>=10.14"):
        done = subprocess.run([*command, "-c", "constraints.txt", name], check=False)  # noqa: S603
        if done.returncode != 0:
            print(
                f"gpu-kit: {name} is not to be had here; the GPU machine's own is used where it has one",
                file=sys.stderr,
            )


def _pack(archive: tarfile.TarFile, wheels: Path | None) -> None:
    files = subprocess.run(["git", "ls-files", "-z"], stdout=subprocess.PIPE, check=True)  # noqa: S607
    for name in sorted(filter(None, files.stdout.decode().split("\0"))):
        if Path(name).is_file():
            archive.add(name, f"gpu-kit/lsx/{name}")
    try:
        models = find_face_models()
    except ExportError as error:
        raise SystemExit(f"gpu-kit: {error}") from error
    for model in (models.detector, models.landmarks):  # every export looks for them in the cache
        archive.add(model, f"gpu-kit/cache/{model.relative_to(cache_folder())}")
    for wheel in sorted(wheels.glob("*")) if wheels is not None else ():
        archive.add(wheel, f"gpu-kit/wheels/{wheel.name}")
    script = tarfile.TarInfo("gpu-kit/run.sh")
    script.mode, script.size = 0o755, len(_INSTALL.encode())
    archive.addfile(script, io.BytesIO(_INSTALL.encode()))


if __name__ == "__main__":
    sys.exit(main())
