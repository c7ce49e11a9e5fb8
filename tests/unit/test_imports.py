"""Importing lsx is light; the serving side never needs the export side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUNDLE = str(Path(__file__).parent / "earlier" / "bundle")


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_import_lsx_loads_no_heavy_library() -> None:
    heavy = {"torch", "numpy", "cv2", "av", "onnxruntime", "pydantic", "onnx", "transformers", "diffusers"}
    assert not heavy & _modules_after("import lsx")


def test_the_runtime_loads_no_export_library() -> None:
    code = "import lsx.runtime.lipsync, lsx.engines.onnxruntime, lsx.cli.main\nfrom lsx import Bundle, Face, LipSync"
    assert not {"torch", "diffusers", "transformers", "onnx", "lsx.models", "lsx.export"} & _modules_after(code)


def test_the_commands_load_no_library_of_pictures_before_they_work() -> None:
    assert not {"cv2", "av", "scipy", "safetensors", "onnxruntime", "torch"} & _modules_after("import lsx.cli.main")


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("nope.mp4", ["run", BUNDLE, "nope.mp4", __file__, "-o", "o.mp4"]),
        ("nope.wav", ["run", BUNDLE, __file__, "nope.wav", "-o", "o.mp4"]),
        ("nope.mp4", ["prepare", BUNDLE, "nope.mp4", "-o", "nope.avatar"]),
        ("nope.mp4", ["faces", "nope.mp4", "--bundle", BUNDLE, "-o", "nope.json"]),
    ],
)
def test_a_missing_file_is_refused_before_what_would_read_it_is_loaded(missing: str, arguments: list[str]) -> None:
    code = f"""
from lsx.cli import console
from lsx.cli.main import main
told = []
console.fail = lambda *error: told.append(error)
try: main({arguments!r})
except SystemExit: pass
assert told == [(1, "MediaError", "{missing}: no such file")], told
"""
    assert not {"av", "cv2", "scenedetect", "scipy", "cuda", "onnxruntime", "torch"} & _modules_after(code)


def test_one_face_is_followed_without_scipy() -> None:
    code = (
        "import numpy as np; from lsx.faces.alignment import Face; from lsx.faces.tracks import FaceTracker; "
        "faces, tracker = [Face(np.eye(3)[:, :2])], FaceTracker(); "
        "[tracker.update(faces, new_shot=new) for new in (True, False)]"
    )
    assert "scipy" not in _modules_after(code)


def test_the_http_side_loads_neither_engines_nor_cuda() -> None:
    loaded = _modules_after("import lsx.serving.http_process, lsx.serving.keeper")
    assert not {"onnxruntime", "cuda", "torch", "lsx.engines", "lsx.runtime", "lsx.denoising"} & loaded
