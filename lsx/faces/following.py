"""All faces of frames that come in order, with their tracks: the same for a run and for `lsx faces`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.faces.alignment import Face
from lsx.faces.shots import ShotCuts, shot_thumbnail
from lsx.faces.tracks import FaceTracker, TrackedFace

__all__ = ["FaceFollower", "Followed", "SeenFrame"]


@dataclass(frozen=True, slots=True, eq=False)
class SeenFrame:
    """What is seen in a frame."""

    faces: list[Face]
    thumbnail: NDArray[np.uint8]
    """The frame in little."""
    new_shot: bool | None = None
    """Whether a shot begins with it; None where that is not known yet."""
    since: int = 0
    """Frames since faces were looked for, and not only followed."""


Followed = Callable[[Frame, Sequence[Face]], list[Face] | None]
"""The same faces in the next frame; None where one of them is lost."""


class FaceFollower:
    """Faces seen in frames, on any thread, and then followed from frame to frame, in order, on one.

    Where they are looked for in every n-th frame alone, frames must be looked at in order, on one thread.
    """

    def __init__(
        self, detect: Callable[[Frame], list[Face]], followed: Followed = lambda _, __: None, every: int = 1
    ) -> None:
        """every : in that many frames faces are looked for once, and `followed` tells where they went between."""
        self._detect, self._followed, self.every = detect, followed, every
        self._cuts, self._tracker = ShotCuts(), FaceTracker()
        self._latest: list[Face] = []
        self._since = 0

    def look(self, frame: Frame) -> SeenFrame:
        """What is seen in a frame."""
        thumbnail = shot_thumbnail(frame)
        if self.every == 1:
            return SeenFrame(self._detect(frame), thumbnail)
        new_shot = self._cuts.begins(thumbnail)
        self._since += 1
        faces = None if new_shot or self._since >= self.every else self._followed(frame, self._latest)
        if faces is None:
            faces, self._since = self._detect(frame), 0
        self._latest = faces
        return SeenFrame(faces, thumbnail, new_shot, self._since)

    def follow(self, seen: SeenFrame) -> tuple[list[TrackedFace], bool]:
        """The next frame's faces with their tracks, and whether a shot begins with it."""
        new_shot = self._cuts.begins(seen.thumbnail) if seen.new_shot is None else seen.new_shot
        return self._tracker.update(seen.faces, new_shot=new_shot), new_shot

    def go_on_after(self, frames: Sequence[SeenFrame]) -> None:
        """Look at the next frame as if these had been looked at here. The last one has its thumbnail.

        All of them are still to be given to `follow`.
        """
        self._cuts.go_on_after([bool(seen.new_shot) for seen in frames], frames[-1].thumbnail)
        self._latest, self._since = frames[-1].faces, frames[-1].since
