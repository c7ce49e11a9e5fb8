"""Every numbered example, as its own first line says to run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision

ROOT = Path(__file__).parents[2]
NUMBERED = sorted((ROOT / "examples").glob("0*.py"))
FRAMES = 40

Bundles = Callable[[Precision, int], Bundle]


@pytest.fixture(scope="module")
def given(
    bundle: Bundles, checkpoint: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    return {
        "CHECKPOINT": checkpoint(64),
        # of its own: the example that verifies writes a record, which other tests do not expect
        "BUNDLE": shutil.copytree(bundle("fp32", 64).path, folder / "shared"),
        "CLIP": write_clip(folder / "clip.mp4", portrait_frames(FRAMES), sound=speech(FRAMES / 25)),
        "VIDEO": folder / "clip.mp4",
        "AUDIO": write_wav(folder / "sound.wav", speech(0.64)),
        "OUT.mp4": folder / "out.mp4",
        "CALIB": folder / "calib",
        "NEW": folder / "bundle",
    }


def _run(name: str, *arguments: object) -> str:
    found = next(path for path in NUMBERED if path.name.startswith(name))
    done = subprocess.run(
        [sys.executable, str(found), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LSX_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_first_export(given: dict[str, Any]) -> None:
    assert "unet_shallow: " in _run("01", given["CHECKPOINT"], given["NEW"])
    assert Bundle.open(given["NEW"]).manifest.precision == "fp32"


def test_python_api(given: dict[str, Any]) -> None:
    assert "16 frames in" in _run("02", given["BUNDLE"], given["VIDEO"], given["AUDIO"], given["OUT.mp4"])
    assert given["OUT.mp4"].stat().st_size > 1000


def test_web_stream(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    names: dict[str, Any] = {}
    exec(compile((ROOT / "examples" / "03_web_stream.py").read_text(), "03_web_stream.py", "exec"), names)  # noqa: S102
    for name in ("BUNDLE", "VIDEO", "AUDIO"):
        monkeypatch.setenv(f"LSX_{name}", str(given[name]))
    with TestClient(names["app"]) as client:
        answer = client.get("/stream?steps=1")
    assert answer.headers["content-type"].startswith("multipart/x-mixed-replace")
    assert answer.content.count(b"\xff\xd8\xff") == 16


def test_calibrate_and_verify(given: dict[str, Any], tmp_path: Path) -> None:
    assert "verified" in _run("04", given["BUNDLE"], given["CLIP"], tmp_path / "calib")


@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX's wheels are for Linux")
def test_build_for_another_gpu(given: dict[str, Any]) -> None:
    shown = _run("05", given["BUNDLE"], "sm89")
    assert "for sm89" in shown


def test_custom_detector(given: dict[str, Any]) -> None:
    assert "frame 15: 640 x 480" in _run("06", given["BUNDLE"], given["VIDEO"], given["AUDIO"])


def test_each_is_tried_and_short() -> None:
    assert [path.name[:2] for path in NUMBERED] == ["01", "02", "03", "04", "05", "06"]
    for path in NUMBERED:
        assert len(path.read_text().splitlines()) < 40, path
