"""Frames to aligned faces: check, detect, align, each frame once and in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.core.threaded_stages import in_order
from lsx.errors import FaceNotFound, LsxError, MediaError
from lsx.faces.alignment import Affine, Aligner, crop_face
from lsx.media.video_reader import FPS
from lsx.runtime.face_choice import FaceChoice

__all__ = ["AlignedFrame", "FaceAligner", "SourceFrames"]

SourceFrames = Iterator[tuple[int, Frame]]
"""Source index and frame of output frame 0, 1, 2, ..."""

_Seen = tuple[int, int, Frame, Any]
"""Output index, source index, frame, and what was seen in it where the frame is new."""


@dataclass(slots=True, eq=False)
class AlignedFrame:
    """One output frame on its way. `affine` and `crop` are None where the frame has no face."""

    index: int
    frame: Frame
    affine: Affine | None
    crop: NDArray[np.uint8] | None


@dataclass(slots=True, eq=False)
class FaceAligner:
    """One clip's faces. `faceless` holds the indices of output frames without a face, when all were aligned."""

    resolution: int
    """Pixels of a side of an aligned face."""
    choice: FaceChoice
    """Whose faces are looked for, and which of them is taken."""
    length: int
    """Output frames."""
    require_face: bool = False
    """Whether a frame without a face is an error."""
    detector_threads: int = 1
    """Threads on which frames are looked at; on more than one that must be thread-safe."""
    faceless: list[int] = field(default_factory=list)

    def check(self, source: SourceFrames) -> Iterator[tuple[int, int, Frame]]:
        """Output index, source index and frame. Raises MediaError for what is no frame."""
        shape: tuple[int, ...] | None = None
        for index, (number, frame) in enumerate(source):
            wrong = not isinstance(frame, np.ndarray) or frame.dtype != np.uint8
            if wrong or frame.ndim != 3 or frame.shape[2] != 3 or (shape is not None and frame.shape != shape):
                description = (
                    f"{frame.dtype}{list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
                )
                raise MediaError(
                    f"frame {index} is {description}; every frame must be uint8 [height, width, 3] RGB of one size"
                )
            shape = frame.shape
            yield index, number, frame

    def detect(self, items: Iterator[tuple[int, int, Frame]]) -> Iterator[_Seen]:
        """Each source frame is looked at once, when it first comes: first times rise, whatever they leave out."""
        latest = -1

        def first_time(item: tuple[int, int, Frame]) -> tuple[int, int, Frame, bool]:
            nonlocal latest
            new = item[1] > latest
            latest = max(latest, item[1])
            return (*item, new)

        def look(item: tuple[int, int, Frame, bool]) -> _Seen:
            index, source, frame, new = item
            return index, source, frame, self.choice.look(frame) if new else None

        return in_order(look, map(first_time, items), self.detector_threads)

    def align(self, items: Iterator[_Seen]) -> Iterator[AlignedFrame]:
        """Crops of the chosen face, where there is one. Raises FaceNotFound."""
        aligner = Aligner(self.resolution)
        # Affines of all source frames, for when they come again: 48 bytes each, NaN where there is no face.
        known = _Affines()
        any_face = False
        for index, source, frame, seen in items:
            if source > known.latest:
                face = self.choice.choose(source, seen, frame.shape[1])
                known.add(source, None if face is None else aligner.affine(face.points))
            affine = known[source]
            any_face = any_face or affine is not None
            if affine is None and self.require_face:
                raise FaceNotFound(
                    f"no face in the frame at {source / FPS:.2f} s (frame {source}). "
                    "Cut it out, or let such frames pass through: --no-face pass"
                )
            crop = None if affine is None else crop_face(frame, affine, self.resolution)
            if affine is None and index < self.length:
                self.faceless.append(index)
            yield AlignedFrame(index, frame, affine, crop)
        if not any_face:
            raise FaceNotFound(
                "no face was found in any frame. Check that the picture is upright and the face at least 40 pixels high"
                + self.choice.advice
            )


class _Affines:
    """Affines by source index, packed."""

    def __init__(self) -> None:
        self._rows = np.full((256, 6), np.nan)
        self._seen = np.zeros(256, bool)
        self.latest = -1
        """The last source index that was added."""

    def add(self, index: int, affine: Affine | None) -> None:
        while index >= len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, np.nan)])
            self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
        if affine is not None:
            self._rows[index] = affine.reshape(6)
        self._seen[index] = True
        self.latest = index

    def __getitem__(self, index: int) -> Affine | None:
        if not 0 <= index <= self.latest or not self._seen[index]:
            raise LsxError(f"source frame {index} came after frame {self.latest}, and was not looked at before")
        row = self._rows[index]
        return None if np.isnan(row[0]) else row.reshape(2, 3).copy()
