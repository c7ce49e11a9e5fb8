"""What may be done to a made face before it is pasted: its colours matched to the frame's, its details sharpened.

Both change the region that the model painted alone. Where that lies is read off: beyond it a made face has the very
pixels of the aligned one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame

__all__ = ["Retouch", "colour_offset", "painted_region", "sharpened"]

_DIFFERENT = 0.5  # levels by which a painted pixel differs from the frame's
_RING = 16  # of a face's side is its ring wide: a sixteenth
_RADIUS = 128  # and the sharpening's radius a hundred-and-twenty-eighth
_GAMMA = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Retouch:
    """What is done to every made face."""

    colour_match: bool = False
    sharpen: float = 0.0

    def __call__(self, made: NDArray[Any], crop: Frame) -> NDArray[Any]:
        """The face to paste, levels [R, R, 3]; `made` itself where nothing is asked for. crop : the aligned face."""
        if not (self.colour_match or self.sharpen):
            return made
        region = painted_region(made, crop)
        result = made.astype(np.float32)
        if self.colour_match:
            result += region[..., None] * colour_offset(made, crop, region)
        return sharpened(result, region, self.sharpen) if self.sharpen else result


def painted_region(made: NDArray[Any], crop: Frame) -> NDArray[np.float32]:
    """1 where the model painted, 0 elsewhere: float32 [R, R]."""
    apart = np.abs(made.astype(np.float32) - crop).max(axis=2) > _DIFFERENT
    closed: Any = cv2.morphologyEx(apart.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(closed, np.float32)


def colour_offset(made: NDArray[Any], crop: Frame, region: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels that each colour lacks: the median over the ring inside the region's border, float32 [3].

    There, along jaw and cheeks, a made face ought to look as the frame does, whatever the mouth says.
    """
    side = max(region.shape[0] // _RING, 1)
    inner: Any = cv2.erode(region, np.ones((2 * side + 1, 2 * side + 1), np.uint8), borderValue=0)
    ring = (region > 0) & (inner == 0)
    if not ring.any():
        return np.zeros(3, np.float32)
    return np.asarray(np.median(crop[ring] - made[ring].astype(np.float32), axis=0), np.float32)


def sharpened(face: NDArray[np.float32], region: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    """An unsharp mask in linear light, `amount` of it, inside the region and fading out at its border."""
    radius = face.shape[0] / _RADIUS
    linear = np.clip(face / 255, 0, 1) ** _GAMMA
    details = linear - np.asarray(cv2.GaussianBlur(linear, (0, 0), radius), np.float32)
    soft = np.asarray(cv2.GaussianBlur(region, (0, 0), 2 * radius), np.float32) * region
    light = np.clip(linear + amount * soft[..., None] * details, 0, 1)
    changed = np.asarray(255 * light ** (1 / _GAMMA), np.float32)
    return np.where(soft[..., None] > 0, changed, face)
