"""Frames of a clip, of what lsx made of it, and of the truth, one above the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.media.video_reader import VideoReader

__all__ = ["strip", "strip_of_files"]

_NAMES = ("video", "result", "truth")
_LABEL = 78  # pixels at the left


def strip(
    rows: tuple[NDArray[np.uint8], ...], columns: int = 8, size: int = 128, names: tuple[str, ...] = _NAMES
) -> NDArray[Any]:
    """One picture, uint8 RGB, of evenly spread frames. rows : uint8 [n, H, W, 3] each; names : of them."""
    count = min(len(row) for row in rows)
    chosen = np.linspace(0, count - 1, columns).round().astype(int)
    lines = []
    for name, row in zip(names, rows, strict=True):
        label = np.full((size, _LABEL, 3), 255, np.uint8)
        cv2.putText(label, name, (8, size // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 46, 60), 1, cv2.LINE_AA)
        faces = [cv2.resize(row[i], (size, size), interpolation=cv2.INTER_AREA) for i in chosen]
        lines.append(np.concatenate([label, *faces], axis=1))
    return np.concatenate(lines)


def strip_of_files(video: Path, result: Path, truth: Path, output: Path) -> None:
    """Write the strip of three videos as a PNG."""
    rows = tuple(np.stack(list(VideoReader(path).frames())) for path in (video, result, truth))
    cv2.imwrite(str(output), strip(rows)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
