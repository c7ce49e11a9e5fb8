"""The wheel, in an empty environment without PyTorch: it installs, and runs a bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import lsx
from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "tensorrt")


def _run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE", "COV_"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel, and what it asks for itself."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: what an earlier build left in the tree would get into the wheel
    shutil.copytree(ROOT / "lsx", source / "lsx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"lsx-{lsx.__version__}-")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return programs


def test_doctor_in_an_empty_environment(lean: Path, tmp_path: Path) -> None:
    found = json.loads(_run(lean / "lsx", "doctor", "--json", cwd=tmp_path))
    assert found["system"]["lsx"] == lsx.__version__
    assert found["system"]["torch"] == "not installed"
    assert found["backends"]["onnxruntime"]["works"]
    assert not found["backends"]["torch"]["works"]


def test_the_outline_of_the_mask_is_in_it(lean: Path, tmp_path: Path) -> None:
    painted = "from lsx.models.mask import mask_raster; print((mask_raster() == 0).sum())"
    assert _run(lean / "python", "-c", painted, cwd=tmp_path).strip() == "26673"


def test_a_bundle_runs_without_pytorch(lean: Path, tmp_path: Path, bundle: Callable[[Precision, int], Bundle]) -> None:
    write_clip(tmp_path / "video.mp4", portrait_frames(16))
    write_wav(tmp_path / "speech.wav", speech(0.64))
    path = bundle("fp32", 64).path
    shown = _run(
        lean / "lsx", "run", path, "video.mp4", "speech.wav", "-o", "out.mp4", "--steps", "1", "--json", cwd=tmp_path
    )
    assert json.loads(shown)["frames"] == 16
    listed = _run(lean / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path)
    names = {package["name"].lower().replace("_", "-") for package in json.loads(listed)}
    assert not names & set(HEAVY)


def test_what_is_missing_is_named(lean: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [lean / "lsx", "export", "checkpoint", "-o", "bundle"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().endswith("Install it: pip install 'lsx[export]'")
    assert len(done.stderr.strip().splitlines()) == 1
