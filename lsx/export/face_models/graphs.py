"""`face_detector` and `face_landmarks` in lsx's contract, from MediaPipe's or InsightFace's networks.

face_detector : image uint8 [1, S, S, 3] RGB to boxes float32 [n, 4] (x0, y0, x1, y1), scores float32 [n] and
keypoints float32 [n, k, 2], coordinates as fractions of the square.
face_landmarks : image uint8 [1, 192, 192, 3] RGB to landmarks float32 [1, L, 2] in pixels of the region, and
presence float32 [1].
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper

from lsx.errors import ExportError
from lsx.export.face_models.tflite_onnx import NetworkParts, network_from_tflite
from lsx.export.onnx_file import OPSET

__all__ = ["insightface_graphs", "mediapipe_graphs"]

_REGION = 192
_MEDIAPIPE_SIZE = 192
_MEDIAPIPE_GRID = 48
# The original prepares InsightFace's detector at 512 x 512.
_INSIGHTFACE_SIZE = 512


class _Builder(NetworkParts):
    """Nodes and initializers with the few patterns that both families share."""

    def pixels(self, image: str, scale: float, offset: float, *, reverse: bool = False) -> str:
        """uint8 [1, H, W, 3] to float32 [1, 3, H, W] * scale + offset; reverse gives BGR."""
        cast = self.node("Cast", [image], "pixels_float", to=TensorProto.FLOAT)
        moved = self.node("Transpose", [cast], "pixels_chw", perm=[0, 3, 1, 2])
        if reverse:
            order = self.constant("pixels_order", np.array([2, 1, 0], np.int64))
            moved = self.node("Gather", [moved, order], "pixels_bgr", axis=1)
        scaled = self.node("Mul", [moved, self.constant("pixels_scale", np.float32(scale))], "pixels_scaled")
        return self.node("Add", [scaled, self.constant("pixels_offset", np.float32(offset))], "pixels")

    def reshape(self, source: str, output: str, shape: list[int]) -> str:
        return self.node("Reshape", [source, self.constant(f"{output}_shape", np.array(shape, np.int64))], output)

    def columns(self, source: str, output: str, start: int, stop: int) -> str:
        """Columns start..stop of the last axis."""
        bounds = [
            self.constant(f"{output}_{name}", np.array([n], np.int64))
            for name, n in (("start", start), ("stop", stop), ("axis", -1))
        ]
        return self.node("Slice", [source, *bounds], output)

    def model(self, name: str, size: int, outputs: dict[str, list[int]]) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, size, size, 3])],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="lsx")
        model.ir_version = 10
        onnx.checker.check_model(model, full_check=True)
        return model


def mediapipe_graphs(detector: bytes, landmarks: bytes) -> dict[str, ModelProto]:
    """MediaPipe's full-range detector and face mesh, .tflite contents, as lsx's two graphs."""
    return {"face_detector": _mediapipe_detector(detector), "face_landmarks": _mediapipe_mesh(landmarks)}


def _join(builder: _Builder, network: NetworkParts, entry: str) -> None:
    builder.node("Identity", [entry], network.input)
    builder.nodes += network.nodes
    builder.initializers += network.initializers


def _mediapipe_detector(content: bytes) -> ModelProto:
    size, grid, count = _MEDIAPIPE_SIZE, _MEDIAPIPE_GRID, _MEDIAPIPE_GRID**2
    network = network_from_tflite(content, "net_")
    b = _Builder()
    _join(b, network, b.pixels("image", 2 / 255, -1.0))
    raw_boxes, raw_scores = network.outputs
    raw = b.reshape(raw_boxes, "raw", [count, 16])
    # One anchor of size 1 a cell; the network gives offsets in pixels of its input.
    cells = (np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), -1).reshape(-1, 2) + 0.5) / grid
    anchors = b.constant("anchors", cells.astype(np.float32))
    unit = b.constant("unit", np.float32(1 / size))
    half = b.constant("half", np.float32(0.5 / size))
    centre = b.node("Mul", [b.columns(raw, "raw_centre", 0, 2), unit], "offset_centre")
    centre = b.node("Add", [centre, anchors], "centre")
    extent = b.node("Mul", [b.columns(raw, "raw_extent", 2, 4), half], "extent")
    low, high = b.node("Sub", [centre, extent], "low"), b.node("Add", [centre, extent], "high")
    b.node("Concat", [low, high], "boxes", axis=1)
    points = b.node("Mul", [b.columns(raw, "raw_points", 4, 16), unit], "offset_points")
    wide = b.constant("anchors_wide", np.tile(cells, (1, 6)).astype(np.float32))  # broadcasting pairs is slow
    b.reshape(b.node("Add", [points, wide], "points"), "keypoints", [count, 6, 2])
    bounds = [b.constant("score_low", np.float32(-100)), b.constant("score_high", np.float32(100))]
    logits = b.node("Clip", [b.reshape(raw_scores, "raw_scores", [count]), *bounds], "logits")
    b.node("Sigmoid", [logits], "scores")
    return b.model("face_detector", size, {"boxes": [count, 4], "scores": [count], "keypoints": [count, 6, 2]})


def _mediapipe_mesh(content: bytes) -> ModelProto:
    network = network_from_tflite(content, "net_")
    b = _Builder()
    _join(b, network, b.pixels("image", 1 / 255, 0.0))
    mesh, flag = network.outputs
    b.columns(b.reshape(mesh, "mesh", [1, 468, 3]), "landmarks", 0, 2)
    b.node("Sigmoid", [b.reshape(flag, "flag", [1])], "presence")
    return b.model("face_landmarks", _REGION, {"landmarks": [1, 468, 2], "presence": [1]})


def insightface_graphs(detector: bytes, landmarks: bytes) -> dict[str, ModelProto]:
    """InsightFace's det_10g.onnx and 2d106det.onnx, file contents, as lsx's two graphs."""
    return {
        "face_detector": _scrfd(_load(detector, "det_10g")),
        "face_landmarks": _points_106(_load(landmarks, "2d106det")),
    }


def _load(content: bytes, name: str) -> ModelProto:
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        return model
    except Exception as error:  # protobuf and onnx raise unrelated classes
        raise ExportError(f"{name}.onnx is not a valid ONNX model. Fetch it again") from error


def _embed(b: _Builder, model: ModelProto, entry: str) -> list[str]:
    """Append an ONNX network, its input fed from `entry`; returns its output names."""
    model = onnx.version_converter.convert_version(model, OPSET) if model.opset_import[0].version != OPSET else model
    compose.add_prefix(model, "net_", inplace=True)
    weights = {tensor.name for tensor in model.graph.initializer}
    (source,) = (value.name for value in model.graph.input if value.name not in weights)
    b.node("Identity", [entry], source)
    b.nodes += model.graph.node
    b.initializers += model.graph.initializer
    return [value.name for value in model.graph.output]


def _scrfd(model: ModelProto) -> ModelProto:
    if len(model.graph.output) != 9:
        raise ExportError(f"det_10g.onnx has {len(model.graph.output)} outputs, not 9: this is another detector")
    size = _INSIGHTFACE_SIZE
    b = _Builder()
    names = _embed(b, model, b.pixels("image", 1 / 128, -127.5 / 128, reverse=True))
    parts: dict[str, list[str]] = {"scores": [], "boxes": [], "keypoints": []}
    total = 0
    for level, stride in enumerate((8, 16, 32)):
        cells = size // stride
        grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2) * stride / size
        centres = grid.repeat(2, axis=0).astype(np.float32)  # two anchors a cell
        count = len(centres)
        total += count
        scale = b.constant(f"scale{level}", np.float32(stride / size))
        anchors = b.constant(f"anchors{level}", centres)
        parts["scores"].append(b.reshape(names[level], f"scores{level}", [count]))
        reach = b.reshape(names[level + 3], f"reach_raw{level}", [count, 4])
        reach = b.node("Mul", [reach, scale], f"reach{level}")
        low = b.node("Sub", [anchors, b.columns(reach, f"reach_low{level}", 0, 2)], f"low{level}")
        high = b.node("Add", [anchors, b.columns(reach, f"reach_high{level}", 2, 4)], f"high{level}")
        parts["boxes"].append(b.node("Concat", [low, high], f"boxes{level}", axis=1))
        points = b.node(
            "Mul", [b.reshape(names[level + 6], f"points_raw{level}", [count, 5, 2]), scale], f"points{level}"
        )
        wide = b.reshape(anchors, f"anchors_wide{level}", [count, 1, 2])
        parts["keypoints"].append(b.node("Add", [points, wide], f"keypoints{level}"))
    for name, inputs in parts.items():
        b.node("Concat", inputs, name, axis=0)
    return b.model("face_detector", size, {"boxes": [total, 4], "scores": [total], "keypoints": [total, 5, 2]})


def _points_106(model: ModelProto) -> ModelProto:
    # Networks that normalise inside take raw levels: InsightFace looks for that in the first nodes, and so does lsx.
    first = list(model.graph.node[:8])
    inside = any(n.name.startswith(("Sub", "_minus")) for n in first) and any(
        n.name.startswith(("Mul", "_mul")) for n in first
    )
    inside = inside or any(n.name == "bn_data" for n in first[:3])
    b = _Builder()
    scale, offset = (1.0, 0.0) if inside else (1 / 128, -127.5 / 128)
    outputs = _embed(b, model, b.pixels("image", scale, offset, reverse=True))
    points = b.reshape(outputs[0], "points", [1, 106, 2])
    points = b.node("Add", [points, b.constant("one", np.float32(1))], "points_shifted")
    b.node("Mul", [points, b.constant("half_region", np.float32(_REGION // 2))], "landmarks")
    b.initializers.append(numpy_helper.from_array(np.ones(1, np.float32), "present"))
    b.node("Identity", ["present"], "presence")
    return b.model("face_landmarks", _REGION, {"landmarks": [1, 106, 2], "presence": [1]})
