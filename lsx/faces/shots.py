"""The beginnings of shots, told frame by frame, so that a run and `lsx faces` cut at the same places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect import ContentDetector, FrameTimecode

from lsx.core.tensors import Frame
from lsx.media.video_reader import FPS

__all__ = ["LEAST_SHOT", "ShotCuts", "shot_thumbnail"]

LEAST_SHOT = 12
"""Frames from cut to cut at least: of those that follow sooner the first counts."""

_EDGE = 256  # pixels: changes of the whole picture are seen in little


def shot_thumbnail(frame: Frame, most: int = _EDGE) -> NDArray[np.uint8]:
    """What a shot detector looks at, of a frame uint8 [H, W, 3] RGB: BGR, its longer edge `most` pixels at most."""
    height, width = frame.shape[:2]
    longer = max(height, width)
    edge = min(most, longer)
    size = (max(width * edge // longer, 1), max(height * edge // longer, 1))
    if longer >= 4 * edge:  # every pixel's say in a mean takes OpenCV eight times as long, for the same cuts
        frame = np.asarray(cv2.resize(frame, (2 * size[0], 2 * size[1]), interpolation=cv2.INTER_LINEAR), np.uint8)
    small: Any = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    return np.asarray(small, dtype=np.uint8)


class ShotCuts:
    """Frames in order to whether each begins a new shot. PySceneDetect's content detector, which never looks ahead."""

    def __init__(self) -> None:
        # Its own filter would let no cut pass soon after the first frame, where a run may well begin.
        self._detector = ContentDetector(min_scene_len=0)
        self._count = 0
        self._last = -LEAST_SHOT

    def begins(self, thumbnail: NDArray[np.uint8]) -> bool:
        """Whether the next frame, by its `shot_thumbnail`, begins a shot; the first does."""
        number = self._count
        found = bool(self._detector.process_frame(FrameTimecode(number, fps=float(FPS)), thumbnail))
        self._count += 1
        if found and number - self._last >= LEAST_SHOT:
            self._last = number
            return True
        return number == 0

    def go_on_after(self, new_shots: Sequence[bool], thumbnail: NDArray[np.uint8]) -> None:
        """Answer for the next frame as if frames had come whose answers these were, the last with that thumbnail."""
        begun = [number for number, new_shot in enumerate(new_shots) if new_shot and number > 0]
        self._last, self._count = begun[-1] if begun else -LEAST_SHOT, len(new_shots)
        self._detector.process_frame(FrameTimecode(self._count - 1, fps=float(FPS)), thumbnail)
