"""Faces out of frames: the similarity that puts three points on the template, and the square crop it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.errors import UsageError

__all__ = ["TEMPLATE", "AlignedFace", "Aligner", "Face", "crop_face", "crop_size", "region_of", "similarity"]

Affine = NDArray[np.float64]

TEMPLATE = np.array([[17.0, 20.0], [58.0, 20.0], [37.5, 40.0]]) * 2.8
"""Places of brow, brow and nose in the crop at 256 pixels: [3, 2] (x, y)."""
_FILL = 127.0


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face in a frame.

    points : [3, 2] pixels (x, y): mean of the left brow's, the right brow's and the nose's landmarks, left and right
    as in the picture. box : optional (x0, y0, x1, y1) in pixels; score : the detector's, 0..1; mouth_opening :
    optional, the inner lips' distance as a share of that of the eyes' outer corners.

    Examples
    --------
    >>> import numpy as np
    >>> Face(points=np.array([[100.0, 100], [150, 100], [125, 130]])).points.shape
    (3, 2)
    """

    points: NDArray[np.float64]
    box: tuple[float, float, float, float] | None = None
    score: float = 1.0
    mouth_opening: float | None = None

    def __post_init__(self) -> None:
        try:
            points = np.asarray(self.points, dtype=np.float64)
        except (TypeError, ValueError):
            points = np.empty(0)
        if points.shape != (3, 2) or not np.isfinite(points).all():
            raise UsageError(f"Face.points is {self.points!r}; give three finite points (x, y): brow, brow, nose")
        object.__setattr__(self, "points", points)


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFace:
    """A face of a frame, cut out."""

    affine: Affine
    """Frame to crop."""
    crop: NDArray[np.uint8]
    """uint8 [resolution, resolution, 3]."""
    moments: NDArray[np.float32] | None = None
    """Moments of the VAE, float32 [2, 2, 4, h, w], where the face was encoded before."""


def crop_size(resolution: int) -> tuple[int, int]:
    """Width and height of the aligned crop in pixels: 210 x 280 at 256, 420 x 560 at 512."""
    return int(75 * 2.8 * resolution / 256), int(100 * 2.8 * resolution / 256)


def similarity(points: NDArray[np.float64], template: NDArray[np.float64]) -> tuple[Affine, NDArray[np.float64]]:
    """The similarity taking `points` to `template` ([3, 2] each), and the nose's bias in scaled units [2]."""
    from_centre, to_centre = points.mean(0), template.mean(0)
    from_points, to_points = points - from_centre, template - to_centre
    from_scale, to_scale = from_points.std(ddof=1), to_points.std(ddof=1)
    if not from_scale > 0:
        raise UsageError("Face.points are one and the same point; give brow, brow and nose")
    from_points, to_points = from_points / from_scale, to_points / to_scale
    u, _, vt = np.linalg.svd(from_points.T @ to_points)
    if np.linalg.det(vt.T @ u.T) < 0:
        vt[-1] = -vt[-1]
    rotation = to_scale / from_scale * (vt.T @ u.T)
    matrix = np.column_stack([rotation, to_centre - rotation @ from_centre])
    return matrix, to_points[2] - from_points[2]


class Aligner:
    """Alignment of a face through a clip. Frames come in order: the smoothing carries state from one to the next."""

    def __init__(self, resolution: int) -> None:
        self._template = TEMPLATE * (resolution / 256)
        self._bias: NDArray[np.float64] | None = None

    def affine(self, points: NDArray[np.float64]) -> Affine:
        """Frame pixels to crop pixels for the next frame's `points` [3, 2]: float64 [2, 3]."""
        matrix, bias = similarity(np.asarray(points, dtype=np.float64), self._template)
        self._bias = bias if self._bias is None else 0.2 * self._bias + 0.8 * bias
        matrix[:, 2] += self._bias
        return matrix


def region_of(
    affine: Affine, size: tuple[int, int], frame: tuple[int, int] | None, margin: int = 2
) -> tuple[int, int, int, int]:
    """The part of a frame that a crop of `size` (w, h) covers: (x0, y0, x1, y1), cut at the `frame` (h, w) if given."""
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], dtype=np.float64)
    inverse = cv2.invertAffineTransform(affine)
    covered = corners @ inverse.T
    x0, y0 = np.floor(covered.min(0)).astype(int) - margin
    x1, y1 = np.ceil(covered.max(0)).astype(int) + margin + 1
    if frame is None:
        return int(x0), int(y0), int(x1), int(y1)
    limit_x, limit_y = frame[1], frame[0]
    return (
        int(np.clip(x0, 0, limit_x)),
        int(np.clip(y0, 0, limit_y)),
        int(np.clip(x1, 0, limit_x)),
        int(np.clip(y1, 0, limit_y)),
    )


def shifted(affine: Affine, x: float, y: float) -> Affine:
    """`affine` for a source whose origin was moved to (x, y)."""
    moved = affine.copy()
    moved[:, 2] += affine[:, :2] @ (x, y)
    return moved


def crop_face(frame: Frame, affine: Affine, resolution: int) -> Frame:
    """The aligned face of a uint8 RGB frame [H, W, 3]: uint8 [resolution, resolution, 3].

    Bilinear with exact weights (OpenCV 5 in float32), outside blended with 127, truncated; then Lanczos4 to the square.
    Only the frame's pixels under the crop are read.
    """
    size = crop_size(resolution)
    x0, y0, x1, y1 = region_of(affine, size, (frame.shape[0], frame.shape[1]))
    if x1 <= x0 or y1 <= y0:  # the whole crop lies outside the frame
        return np.full((resolution, resolution, 3), int(_FILL), dtype=np.uint8)
    inverse = cv2.invertAffineTransform(shifted(affine, x0, y0))
    crop: Any = cv2.warpAffine(
        frame[y0:y1, x0:x1].astype(np.float32),
        inverse,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(_FILL, _FILL, _FILL),
        hint=cv2.ALGO_HINT_ACCURATE,
    )
    square = cv2.resize(crop.astype(np.uint8), (resolution, resolution), interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(square, dtype=np.uint8)
