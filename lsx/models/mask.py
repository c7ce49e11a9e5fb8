"""The inpainting mask: 1 keeps a pixel, 0 is where the model paints."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.errors import CheckpointError

__all__ = ["mask_at", "mask_raster"]

_OUTLINE = "mask_outline.json"
"""Outline [x, y] of the painted area of the released 256 x 256 mask; filled, it gives the released raster exactly.
Left side downwards, chin, right side upwards."""


def mask_raster(path: Path | None = None) -> NDArray[np.uint8]:
    """The mask as uint8 [height, width], 0 where the model paints: the file at `path`, or the released mask.

    Raises CheckpointError when the file is no image or paints nothing.
    """
    if path is None:
        raster = np.full((256, 256), 255, dtype=np.uint8)
        outline = json.loads(files(__package__).joinpath(_OUTLINE).read_text(encoding="utf-8"))
        cv2.fillPoly(raster, [np.array(outline, dtype=np.int32)], 0)
        return raster
    if not path.is_file():
        raise CheckpointError(f"{path}: no such mask image. Give another --mask, or none for the released mask")
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise CheckpointError(f"{path}: not an image. Give the mask as a PNG, black where the model paints")
    raster = np.asarray(image, dtype=np.uint8)
    if raster.min() > 127 or raster.max() < 128:
        raise CheckpointError(f"{path}: the mask is of one colour; it must be black where the model paints")
    return raster


def mask_at(raster: NDArray[np.uint8], resolution: int) -> NDArray[np.float32]:
    """The mask at `resolution`, float32 [resolution, resolution] in 0..1.

    Another size than the raster's is made with Lanczos4 in uint8, as the original does, so its edges are soft.
    """
    if raster.shape != (resolution, resolution):
        resized = cv2.resize(raster, (resolution, resolution), interpolation=cv2.INTER_LANCZOS4)
        raster = np.asarray(resized, dtype=np.uint8)
    return raster.astype(np.float32) / np.float32(255)
