"""The face models on the public-domain portrait, and InsightFace's form on networks that answer what is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from examples.synthetic_clip import portrait_frames
from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import FACE_GRAPHS
from lsx.core.tensors import Precision, TensorSpec
from lsx.engines.loading import load_engine
from lsx.engines.onnxruntime import engine_from_onnx
from lsx.errors import ExportError
from lsx.export.face_models.models import FaceSource, face_graphs, find_face_models
from lsx.faces.detector import FaceDetector


@pytest.fixture(scope="module")
def detector(bundle: Callable[[Precision, int], Bundle]) -> FaceDetector:
    opened = bundle("fp32", 64)
    assert opened.manifest.faces.family == "mediapipe"
    return FaceDetector({graph: load_engine(opened, graph, threads=1) for graph in FACE_GRAPHS}, "mediapipe")


def _portrait() -> NDArray[np.uint8]:
    from skimage.data import astronaut

    return np.asarray(astronaut(), dtype=np.uint8)


def test_the_portrait(detector: FaceDetector) -> None:
    face = detector(_portrait())
    assert face is not None
    # Read off the picture by eye: brows at (202, 87) and (250, 91), nose at (223, 122), within 8 pixels.
    assert np.abs(face.points - [[202, 87], [250, 91], [223, 122]]).max() < 8
    assert np.array_equal(face.points, np.round(face.points))
    assert face.score > 0.7


def test_points_follow_the_picture(detector: FaceDetector) -> None:
    """Shifted, enlarged and turned, the same face gives the same points, in the picture's own coordinates."""
    portrait = _portrait()
    base = detector(portrait)
    assert base is not None
    for scale, angle, shift in ((1.0, 0, (37, 21)), (1.6, 0, (0, 0)), (1.0, 15, (60, 40)), (0.7, -10, (30, 90))):
        matrix = cv2.getRotationMatrix2D((220.0, 120.0), angle, scale)
        matrix[:, 2] += shift
        moved = np.asarray(cv2.warpAffine(portrait, matrix, (900, 700)), dtype=np.uint8)
        face = detector(moved)
        assert face is not None
        wanted = base.points @ matrix[:, :2].T + matrix[:, 2]
        assert np.abs(face.points - wanted).max() < 4.5 * max(scale, 1.0)


def test_every_frame_of_a_clip_and_none_of_a_landscape(detector: FaceDetector) -> None:
    assert all(detector(frame) is not None for frame in portrait_frames(8))
    y, x = np.mgrid[0:480, 0:640]
    empty = np.stack([x // 3 % 256, y // 2 % 256, (x + y) // 5 % 256], -1).astype(np.uint8)
    assert detector(empty) is None


def test_followed_faces_lie_where_they_are_found(detector: FaceDetector) -> None:
    """By landmarks from frame to frame, without looking: as far from what looking finds as its own rounding."""
    frames = list(portrait_frames(12))
    faces, apart = detector.faces(frames[0]), []
    for frame in frames[1:]:
        followed = detector.followed(frame, faces)
        assert followed is not None
        faces = followed
        apart.append(np.abs(followed[0].points - detector.faces(frame)[0].points).max())
    assert np.mean(apart) <= 1
    assert max(apart) <= 2
    assert detector.followed(np.full_like(frames[0], 90), faces) is None  # the face is gone
    assert detector.followed(frames[0], []) == []
    beside = replace(faces[0], points=faces[0].points + 4)
    assert detector.followed(frames[-1], [faces[0], beside]) is None  # two that lie on one


def test_a_small_face_is_found_in_tiles(detector: FaceDetector) -> None:
    """A face of 50 x 65 pixels in 1920 x 1080: 5 pixels wide where the detector sees the whole frame."""
    small = cv2.resize(_portrait()[:256, 90:346], None, fx=0.55, fy=0.55, interpolation=cv2.INTER_AREA)
    frame = np.full((1080, 1920, 3), 90, np.uint8)
    frame[300 : 300 + small.shape[0], 1200 : 1200 + small.shape[1]] = small
    face = detector(frame)
    assert face is not None
    wanted = (np.array([[202, 87], [246, 91], [223, 118]]) - [90, 0]) * 0.55 + [1200, 300]
    assert np.abs(face.points - wanted).max() < 8


def _insightface(folder: Path) -> None:
    """Networks with InsightFace's I/O: one box of 0.9 at a known place, and points that are known."""
    outputs: list[Any] = []
    nodes, weights = [], []
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            count = 2 * (512 // stride) ** 2
            value = np.zeros((count, width), np.float32)
            if stride == 16:  # one of 0.9 and, on the cell's other anchor, the same of 0.8
                cell = 2 * (16 * 32 + 12)  # (12, 16): centre (192, 256)
                answers = {"score": [[0.9], [0.8]], "box": [[4, 5, 4, 6]] * 2, "points": [[1] * 10] * 2}
                value[cell : cell + 2] = np.array(answers[kind])
            name = f"{kind}{stride}"
            weights.append(numpy_helper.from_array(value, f"{name}_value"))
            nodes += [
                helper.make_node("ReduceMean", ["input"], [f"{name}_mean"], keepdims=0),
                helper.make_node("Mul", [f"{name}_mean", "zero"], [f"{name}_zero"]),
                helper.make_node("Add", [f"{name}_value", f"{name}_zero"], [name]),
            ]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, width]))
    weights.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, "det", [image], outputs, weights)
    onnx.save(_model(graph), str(folder / "det_10g.onnx"))
    # Every point at (c, c): c the mean level of the region's first channel, blue, over 255, so channel order shows.
    spread = np.ones((1, 212), np.float32)
    nodes = [
        helper.make_node("Slice", ["data", "from", "to", "axis"], ["blue"]),
        helper.make_node("ReduceMean", ["blue"], ["level"], keepdims=0),
        helper.make_node("Mul", ["level", "unit"], ["share"]),
        helper.make_node("Mul", ["spread", "share"], ["fc1"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([n], np.int64), name) for name, n in (("from", 0), ("to", 1), ("axis", 1))
    ]
    weights += [
        numpy_helper.from_array(spread, "spread"),
        numpy_helper.from_array(np.array(1 / 255, np.float32), "unit"),
    ]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 192, 192])
    nodes.insert(0, helper.make_node("Sub", ["raw", "nought"], ["centred"], name="Sub_in"))
    nodes.insert(1, helper.make_node("Mul", ["centred", "one"], ["data"], name="Mul_in"))
    weights += [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("nought", 0), ("one", 1))]
    data.name = "raw"
    fc1 = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 212])
    onnx.save(_model(helper.make_graph(nodes, "points", [data], [fc1], weights)), str(folder / "2d106det.onnx"))


def _model(graph: Any) -> Any:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model


def test_insightface(tmp_path: Path) -> None:
    _insightface(tmp_path)
    source = find_face_models(tmp_path)
    assert source.family == "insightface"
    engines = {}
    for name, model in face_graphs(source).items():
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, str(path))
        specs = [
            TensorSpec(
                name=value.name,
                dtype="uint8" if value.type.tensor_type.elem_type == TensorProto.UINT8 else "float32",
                shape=tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
            )
            for value in (*model.graph.input, *model.graph.output)
        ]
        engines[name] = engine_from_onnx(path, name, specs[:1], specs[1:])
    frame = np.zeros((1024, 1024, 3), np.uint8)
    frame[..., 2] = 51  # blue, RGB's last channel: a fifth of 255
    face = FaceDetector(engines, "insightface")(frame)
    assert face is not None
    # Box in 512ths: (192 - 64, 256 - 80) to (192 + 64, 256 + 96); the frame is twice as large.
    assert face.box == (256.0, 352.0, 512.0, 704.0)
    assert face.score == pytest.approx(0.9)
    # The region: centre (384, 528), 352 * 1.5 = 528 pixels wide on 192. Points at (0.2 + 1) * 96 of it.
    at = (1.2 * 96 - 96) * 528 / 192
    assert np.abs(face.points - np.round([384 + at, 528 + at])).max() <= 1


def test_face_models_that_are_not(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--face-models needs"):
        find_face_models(tmp_path)
    for name in ("face_detection_full_range_sparse.tflite", "face_landmark.tflite"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ExportError, match="SHA-256 differs"):
        find_face_models(tmp_path)
    for name in ("det_10g.onnx", "2d106det.onnx"):
        (tmp_path / name).write_bytes(b"nothing")
    source = find_face_models(tmp_path)
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        face_graphs(source)


def test_without_network_and_cache_the_flag_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSX_CACHE", str(tmp_path))
    for variable, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(variable, value)
    with pytest.raises(ExportError, match="--face-models DIR"):
        find_face_models()


def test_sources_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    source = FaceSource(family="mediapipe", detector=tmp_path / "a", landmarks=tmp_path / "a")
    assert source.hashes() == {"a": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}
