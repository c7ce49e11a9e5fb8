"""All faces of frames that come in order, with their tracks: the same for a run and for `lsx faces`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.faces.alignment import Face
from lsx.faces.shots import ShotCuts, shot_thumbnail
from lsx.faces.tracks import FaceTracker, TrackedFace

__all__ = ["FaceFollower", "SeenFrame"]

SeenFrame = tuple[list[Face], NDArray[np.uint8]]
"""A frame's faces, and the frame in little."""


class FaceFollower:
    """Faces seen in frames, on any thread, and then followed from frame to frame, in order, on one."""

    def __init__(self, detect: Callable[[Frame], list[Face]]) -> None:
        self._detect = detect
        self._cuts, self._tracker = ShotCuts(), FaceTracker()

    def look(self, frame: Frame) -> SeenFrame:
        """What is seen in a frame."""
        return self._detect(frame), shot_thumbnail(frame)

    def follow(self, seen: SeenFrame) -> tuple[list[TrackedFace], bool]:
        """The next frame's faces with their tracks, and whether a shot begins with it."""
        faces, thumbnail = seen
        new_shot = self._cuts.begins(thumbnail)
        return self._tracker.update(faces, new_shot=new_shot), new_shot
