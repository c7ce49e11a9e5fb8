"""Faces in frames: detector, region, landmarks, selection, three points. The largest of a frame, or all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import FACE_GRAPHS
from lsx.core.tensors import Frame
from lsx.engines.engine import Engine
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions
from lsx.faces.alignment import Face
from lsx.faces.tracks import box_of, overlap

__all__ = ["FAMILIES", "FaceDetector", "FaceFamily", "detector_threads", "opened_detector"]


Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFamily:
    """What differs between MediaPipe's and InsightFace's models."""

    sets: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Landmark indices of the left brow, the right brow and the nose."""
    score: float
    """Lowest detector score."""
    min_size: tuple[int, int]
    """Smallest box, width and height in pixels."""
    overlap: float
    """Intersection over union above which the lower of two detections is dropped."""
    centred: bool
    """Whether the frame lies in the middle of the detector's square, or at its top left."""
    rotated: bool
    """Whether the landmark region follows the eyes, and is taken again from the landmarks."""


FAMILIES: dict[str, FaceFamily] = {
    # Lower limits than the original's 50 x 80, for a box round the mesh, which has no forehead.
    "mediapipe": FaceFamily(
        sets=((70, 63, 105, 66, 107), (336, 296, 334, 293, 300), (5, 4, 129, 358)),
        score=0.5,
        min_size=(32, 40),
        overlap=0.3,
        centred=True,
        rotated=True,
    ),
    "insightface": FaceFamily(
        sets=((43, 48, 49, 51, 50), (101, 102, 103, 104, 105), (74, 77, 83, 86)),
        score=0.5,
        min_size=(50, 80),
        overlap=0.4,
        centred=False,
        rotated=False,
    ),
}

_ASPECT = (0.2, 1.5)  # width over height of an acceptable box, as in the original
_PRESENCE = 0.5
_REGION = 192
_REGION_SCALE = 1.5
_EYE_CORNERS = [33, 263]
_INNER_LIPS = [13, 14]
_CANDIDATES = 4  # detections whose landmarks are looked for, largest first
_MOST_FACES = 12  # and where all faces are wanted
_SAME = 0.5  # intersection over union of two meshes that lie on one face


@dataclass(frozen=True, slots=True, eq=False)
class _Detection:
    box: Floats
    """x0, y0, x1, y1 in frame pixels."""
    score: float
    keypoints: Floats
    """[k, 2]; for MediaPipe the first two are the eyes."""

    @property
    def area(self) -> float:
        return float(max(self.box[2] - self.box[0], 0) * max(self.box[3] - self.box[1], 0))


class FaceDetector:
    """frame uint8 [H, W, 3] RGB to the largest acceptable Face, or None. Frames are independent; thread-safe.

    `faces` has all of them.
    """

    def __init__(self, engines: Mapping[str, Engine], family: str) -> None:
        self._detector, self._landmarks = (engines[name] for name in FACE_GRAPHS)
        self._family = FAMILIES[family]
        self._sets = [np.array(indices) for indices in self._family.sets]
        size = self._detector.inputs["image"].shape[1]
        self._size = int(size)

    def __call__(self, frame: Frame) -> Face | None:
        """Look in the whole frame; where that finds nothing, in overlapping tiles, for small faces."""
        return next(iter(self._found(frame, _CANDIDATES)), None)

    def faces(self, frame: Frame) -> list[Face]:
        """All acceptable faces, largest first, at most 12. Raises EngineError."""
        return _apart(self._found(frame, _MOST_FACES))

    def followed(self, frame: Frame, before: Sequence[Face]) -> list[Face] | None:
        """The faces of the frame before in this one, by their landmarks alone, in a third of the time.

        None where one of them is not there any more, or two lie on one, and with models that do not say so.
        """
        if not self._family.rotated:
            return None
        found = []
        for face in before:
            corners, brows = np.array(box_of(face), np.float32).reshape(2, 2), face.points[:2].astype(np.float32)
            mesh = self._mesh(frame, corners, brows, face.score, rounds=1)
            if mesh is None or not self._is_acceptable(mesh):
                return None
            found.append(mesh)
        kept = _apart(sorted(found, key=lambda face: -_area(box_of(face))))
        return kept if len(kept) == len(found) else None

    def _found(self, frame: Frame, candidates: int) -> list[Face]:
        faces = self._acceptable(frame, self._detect(frame), candidates)
        if not faces and self._family.centred:
            faces = self._acceptable(frame, self._detect_in_tiles(frame), candidates)
        return faces

    def _detect(self, frame: Frame) -> list[_Detection]:
        height, width = frame.shape[:2]
        scale = self._size / max(height, width)
        fitted = (max(int(width * scale), 1), max(int(height * scale), 1))
        left, top = ((self._size - n) // 2 if self._family.centred else 0 for n in fitted)
        square = np.zeros((1, self._size, self._size, 3), np.uint8)
        shrunk = cv2.resize(frame, fitted, interpolation=cv2.INTER_LINEAR)
        square[0, top : top + fitted[1], left : left + fitted[0]] = shrunk
        outputs = self._detector.run({"image": square})
        order = np.flatnonzero(outputs["scores"] >= self._family.score)
        order = order[np.argsort(-outputs["scores"][order], kind="stable")]
        # InsightFace divides both axes by the height's scale, which rounding makes differ a little from the width's.
        ratio = np.float32(self._size / (fitted[1] / height))
        origin = np.array([left, top], np.float32) / self._size
        boxes = (outputs["boxes"][order].reshape(-1, 2, 2) - origin) * ratio
        points = (outputs["keypoints"][order] - origin) * ratio
        chosen = _non_overlapping(boxes.reshape(-1, 4), self._family.overlap)
        scores = outputs["scores"][order]
        return [_Detection(boxes[i].reshape(4), float(scores[i]), points[i]) for i in chosen]

    def _detect_in_tiles(self, frame: Frame) -> list[_Detection]:
        """Detections in square tiles of half the shorter edge, overlapping by half."""
        height, width = frame.shape[:2]
        tile = min(height, width) // 2
        if tile < 2 * self._family.min_size[1]:
            return []
        detections: list[_Detection] = []
        for top in np.linspace(0, height - tile, -(-2 * (height - tile) // tile) + 1).astype(int):
            for left in np.linspace(0, width - tile, -(-2 * (width - tile) // tile) + 1).astype(int):
                shift = np.array([left, top], np.float32)
                detections += [
                    _Detection((d.box.reshape(2, 2) + shift).reshape(4), d.score, d.keypoints + shift)
                    for d in self._detect(np.ascontiguousarray(frame[top : top + tile, left : left + tile]))
                ]
        return detections

    def _acceptable(self, frame: Frame, detections: list[_Detection], candidates: int) -> list[Face]:
        """The faces of the largest detections, themselves largest first."""
        found: list[Face] = []
        for detection in sorted(detections, key=lambda d: -d.area)[:candidates]:
            if self._family.rotated:
                face = self._mesh(frame, detection.box.reshape(2, 2), detection.keypoints[:2], detection.score)
            else:
                face = self._points_106(frame, detection)
            if face is not None and self._is_acceptable(face):
                found.append(face)
        return sorted(found, key=lambda face: -_area(box_of(face)))

    def _is_acceptable(self, face: Face) -> bool:
        x0, y0, x1, y1 = box_of(face)
        width, height = x1 - x0, y1 - y0
        large = width >= self._family.min_size[0] and height >= self._family.min_size[1]
        return large and _ASPECT[0] <= width / height <= _ASPECT[1]

    def _mesh(self, frame: Frame, corners: Floats, eyes: Floats, score: float, rounds: int = 2) -> Face | None:
        """MediaPipe: the region from box and eyes, the mesh, then region and mesh again from the mesh itself."""
        landmarks: Floats | None = None
        for _ in range(rounds):
            landmarks, presence = self._region_landmarks(frame, _upright_region(corners, eyes))
            if presence <= _PRESENCE:
                return None
            corners = np.array([landmarks.min(0), landmarks.max(0)])
            eyes = landmarks[_EYE_CORNERS, :]
        assert landmarks is not None  # noqa: S101
        x0, y0, x1, y1 = (float(n) for n in corners.reshape(4))
        eyes_apart = float(np.hypot(*(eyes[1] - eyes[0])))
        opening = float(np.hypot(*(landmarks[_INNER_LIPS[1]] - landmarks[_INNER_LIPS[0]]))) / max(eyes_apart, 1e-6)
        points = self._three_points(landmarks)
        return Face(points=points, box=(x0, y0, x1, y1), score=score, mouth_opening=opening)

    def _points_106(self, frame: Frame, detection: _Detection) -> Face | None:
        """InsightFace: an upright region round the box; whole-number box for the selection, as in the original."""
        x0, y0, x1, y1 = (float(n) for n in detection.box)
        scale = _REGION / (max(x1 - x0, y1 - y0) * _REGION_SCALE)
        centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        to_region = np.column_stack([np.eye(2) * scale, _REGION / 2 - centre * scale])
        landmarks, _ = self._region_landmarks(frame, to_region, cv2.BORDER_CONSTANT)
        box = (float(int(x0)), float(int(y0)), float(int(x1)), float(int(y1)))
        return Face(points=self._three_points(landmarks), box=box, score=detection.score)

    def _region_landmarks(
        self, frame: Frame, to_region: NDArray[np.float64], border: int = cv2.BORDER_REPLICATE
    ) -> tuple[Floats, float]:
        """Landmarks [L, 2] in frame pixels, and presence, of the 192 x 192 region that `to_region` [2, 3] maps to."""
        region: Any = cv2.warpAffine(frame, to_region, (_REGION, _REGION), flags=cv2.INTER_LINEAR, borderMode=border)
        outputs = self._landmarks.run({"image": region[None]})
        back = cv2.invertAffineTransform(to_region)
        return outputs["landmarks"][0] @ back[:, :2].T + back[:, 2], float(outputs["presence"][0])

    def _three_points(self, landmarks: Floats) -> NDArray[np.float64]:
        """Mean of each set, rounded half to even, as in the original."""
        points = [np.add.reduce(landmarks.take(indices, axis=0), axis=0) / len(indices) for indices in self._sets]
        return np.asarray(np.round(points), dtype=np.float64)


def detector_threads(every: int = 1) -> int:
    """Threads for looking at frames: a quarter of the cores, at most 4, for it goes beside every other stage.

    every : frames of which one is looked at; in those between, faces are followed, which goes in order.
    """
    return min(max((os.cpu_count() or 1) // 4, 1), 4) if every == 1 else 1


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _apart(faces: Sequence[Face]) -> list[Face]:
    """Those that lie on none before them."""
    kept: list[Face] = []
    for face in faces:
        if all(overlap(box_of(face), box_of(other)) < _SAME for other in kept):
            kept.append(face)
    return kept


def _upright_region(corners: Floats, eyes: Floats) -> NDArray[np.float64]:
    """Frame to region: a square 1.5 times the longer edge of the box, turned so that the eyes lie level."""
    (x0, y0), (x1, y1) = corners.tolist()
    (eye_x, eye_y), (other_x, other_y) = eyes.tolist()
    scale = _REGION / max(max(x1 - x0, y1 - y0) * _REGION_SCALE, 1e-6)
    angle = math.atan2(other_y - eye_y, other_x - eye_x)
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, _REGION / 2
    return np.array([[cosine, sine, half - cosine * x - sine * y], [-sine, cosine, half + sine * x - cosine * y]])


def _non_overlapping(boxes: Floats, overlap: float) -> list[int]:
    """Greedy non-maximum suppression of boxes [n, 4], best first."""
    if len(boxes) < 2:
        return list(range(len(boxes)))
    chosen: list[int] = []
    remaining = list(range(len(boxes)))
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1)
    while remaining:
        best, *rest = remaining
        chosen.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        union = sizes[best] + sizes[rest] - shared
        remaining = [i for i, s, u in zip(rest, shared, union, strict=True) if s <= overlap * u]
    return chosen


@contextmanager
def opened_detector(bundle: Bundle) -> Iterator[FaceDetector]:
    """The bundle's detector on its own, on one thread: some milliseconds a frame. Raises BundleError, EngineError."""
    with opened_engines(bundle, "onnxruntime", FACE_GRAPHS, EngineOptions(threads=1)) as engines:
        yield FaceDetector(engines, bundle.manifest.faces.family)
