"""Draw docs/images/strip.png: one frame on its way through a bundle. python scripts/strip.py BUNDLE [OUT.png]."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech
from lsx import LipSync
from lsx.faces.alignment import Aligner, crop_face

HEIGHT = 240
NAMES = ("frame", "aligned face", "what the model keeps", "what it paints", "result")


def panels(lipsync: LipSync) -> list[NDArray[np.uint8]]:
    """The five pictures, uint8 RGB."""
    frames = list(portrait_frames(16))
    model = lipsync.bundle.model
    face = lipsync.detector()(frames[0])
    if face is None:
        raise SystemExit("no face in the synthetic portrait")
    affine = Aligner(model.resolution).affine(face.points)
    crop = crop_face(frames[0], affine, model.resolution)
    with lipsync.stream(frames, speech(16 / 25), steps=2, seed=0) as stream:
        result = next(stream)
    painted = crop_face(result, affine, model.resolution)
    kept = crop.copy()
    changed = np.abs(painted.astype(int) - crop).max(axis=2) > 12
    for operation in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):  # the painted region whole, and nothing beside it
        changed = cv2.morphologyEx(changed.astype(np.uint8), operation, np.ones((11, 11), np.uint8)).astype(bool)
    kept[changed] = 235
    alone = np.full_like(painted, 235)
    alone[changed] = painted[changed]
    return [frames[0], crop, kept, alone, result]


def strip(pictures: list[NDArray[np.uint8]]) -> NDArray[Any]:
    """The pictures side by side, each with its name underneath, uint8 RGB."""
    columns = []
    for name, picture in zip(NAMES, pictures, strict=True):
        width = round(picture.shape[1] * HEIGHT / picture.shape[0])
        column = np.full((HEIGHT + 34, width + 12, 3), 255, np.uint8)
        column[6 : HEIGHT + 6, 6 : width + 6] = cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA)
        cv2.putText(column, name, (8, HEIGHT + 26), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 46, 60), 1, cv2.LINE_AA)
        columns.append(column)
    return np.concatenate(columns, axis=1)


def main(bundle: str, output: Path) -> None:
    """Write the strip."""
    with LipSync.open(bundle, "onnxruntime") as lipsync:
        picture = strip(panels(lipsync))
    cv2.imwrite(str(output), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else "docs/images/strip.png"))
