"""Whether a segment's faces and sound are fit to train on: in words, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.calibration.clips import SILENCE
from lsx.core.tensors import Frame
from lsx.faces.alignment import Affine, crop_size
from lsx.faces.sharpness import grey_face

__all__ = ["is_silent", "outside_share", "stillness_of"]


def outside_share(affines: Sequence[Affine], frame: tuple[int, int], resolution: int) -> float:
    """Largest share of the aligned crop that lies outside the frame (height, width), over all frames, 0..1."""
    width, height = crop_size(resolution)
    corners = np.array([[0.0, 0.0], [width, 0], [width, height], [0, height]])
    whole = np.array([[0, 0], [frame[1], 0], [frame[1], frame[0]], [0, frame[0]]], np.float32)
    worst = 0.0
    for affine in affines:
        inverse = cv2.invertAffineTransform(affine)
        crop = (corners @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)
        inside, _ = cv2.intersectConvexConvex(crop, whole)
        worst = max(worst, 1.0 - float(inside) / max(float(cv2.contourArea(crop)), 1e-6))
    return worst


def stillness_of(faces: Frame) -> float:
    """Mean change of the lower half from a face to the next, in levels: a talking face has about 5, a photograph 0."""
    greys = np.stack([grey_face(face) for face in faces]).astype(np.int16)
    lower = greys[:, greys.shape[1] // 2 :]
    return float(np.abs(np.diff(lower, axis=0)).mean()) if len(faces) > 1 else 0.0


def is_silent(samples: NDArray[np.int16]) -> bool:
    """Whether the sound stays under -60 dB of full scale."""
    return bool(np.abs(samples.astype(np.int32)).max(initial=0) < SILENCE * 32768)
