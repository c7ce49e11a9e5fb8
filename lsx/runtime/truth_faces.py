"""What a clip ought to become, where that is known: cut out where the clip's own faces are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.errors import UsageError
from lsx.faces.alignment import crop_face
from lsx.media.video_reader import VideoReader
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.face_choice import Slot

__all__ = ["TruthFaces"]


class TruthFaces:
    """Faces of a video of the same frames as the result ought to be. Chunks are asked for in order.

    size : width and height of the clip's frames; length : output frames. Raises UsageError for another size.
    """

    def __init__(self, path: Path, size: tuple[int, int], length: int, resolution: int) -> None:
        reader = VideoReader(path)
        if (reader.width, reader.height) != size:
            raise UsageError(
                f"{path}: its frames are {reader.width} x {reader.height}, the clip's {size[0]} x {size[1]}; "
                "a truth is the clip as the result ought to be"
            )
        self._frames = enumerate(frame for _, frame in reader.ping_pong(length))
        self._near: dict[int, Frame] = {}
        self._resolution = resolution

    def faces(self, items: list[AlignedFrame]) -> NDArray[np.uint8]:
        """Aligned faces [F, R, R, 3] of these frames; where the clip has no face, the nearest's place is taken."""
        found = [item.faces.get(Slot(0, 0)) for item in items]
        affines = [None if face is None else face.affine for face in found]
        present = [i for i, affine in enumerate(affines) if affine is not None]
        for index, frame in self._frames:
            self._near[index] = frame
            if index == items[-1].index:
                break
        self._near = {index: frame for index, frame in self._near.items() if index >= items[0].index}
        crops = []
        for i, item in enumerate(items):
            affine = affines[min(present, key=lambda p: abs(p - i))] if present else None
            crops.append(
                np.zeros((self._resolution, self._resolution, 3), np.uint8)
                if affine is None
                else crop_face(self._near[item.index], affine, self._resolution)
            )
        return np.stack(crops)
