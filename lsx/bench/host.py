"""The host's stages on one core: detection with landmarks, and alignment with pasting, at 1080p."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.bench.timing import repeated
from lsx.bundle.bundle import Bundle
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.compositing import Compositor
from lsx.faces.detector import opened_detector

__all__ = ["align_and_paste_seconds", "detect_seconds"]

_POINTS = np.array([[-0.5, -0.45], [0.5, -0.43], [0.02, 0.45]])
"""Brow, brow and nose in units of the distance between the brows."""


def _median(work: Callable[[], object], repeat: int) -> float:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return statistics.median(repeated(work, repeat))
    finally:
        cv2.setNumThreads(threads)


def detect_seconds(bundle: Bundle, frame: NDArray[np.uint8], repeat: int = 20) -> float:
    """Median seconds to find the face and its landmarks in `frame` uint8 [H, W, 3], on one core."""
    with opened_detector(bundle) as detector:
        return _median(lambda: detector(frame), repeat)


def align_and_paste_seconds(resolution: int, brows: float, repeat: int = 20) -> float:
    """Median seconds to crop a face out of a 1080p frame and paste it back, on one core. brows : their distance, px."""
    y, x = np.mgrid[0:1080, 0:1920]
    frame = np.stack([(x // 3 + y // 5 + 40 * c) % 256 for c in range(3)], -1).astype(np.uint8)
    affine = Aligner(resolution).affine(_POINTS * brows + [960, 500])
    compositor = Compositor()
    face = crop_face(frame, affine, resolution)

    def work() -> None:
        crop_face(frame, affine, resolution)
        compositor.paste(frame, face, affine)

    return _median(work, repeat)
