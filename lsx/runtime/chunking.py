"""Frames to calls of the U-Net: detect, align, and 16 faces at a time.

The last call covers the clip's last 16 frames, and only its new frames are kept; a clip of fewer is completed by
ping-pong, and what was added is dropped at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import in_order
from lsx.denoising.chunk_runner import PendingCall
from lsx.errors import FaceNotFound, LsxError, MediaError
from lsx.faces.alignment import Affine, Aligner, Face, crop_face
from lsx.media.video_reader import FPS

__all__ = ["Call", "CallMaker", "Detector", "Item", "SourceFrames"]

Detector = Callable[[Frame], Face | None]

SourceFrames = Iterator[tuple[int, Frame]]
"""Source index and frame of output frame 0, 1, 2, ..."""

_Seen = tuple[int, int, Frame, Face | None]
"""Output index, source index, frame, and its face where the frame is new."""


@dataclass(slots=True, eq=False)
class Item:
    """One output frame on its way. `affine` and `crop` are None where the frame has no face."""

    index: int
    frame: Frame
    affine: Affine | None
    crop: NDArray[np.uint8] | None


@dataclass(slots=True, eq=False)
class Call:
    """One call of the U-Net: `F` frames, of which the last `new` are kept."""

    number: int
    items: list[Item]
    new: int
    faces: NDArray[np.uint8] | None
    """uint8 [F, H, W, 3]; None where no frame of the call has a face."""
    pending: PendingCall | None = None
    """The call while it is computed."""
    pixels: NDArray[Any] | None = None
    """What the call made, levels [F, H, W, 3]; this run's own."""


@dataclass(slots=True, eq=False)
class CallMaker:
    """One clip's calls. `faceless` holds the indices of frames without a face, when all were made."""

    model: ModelSpec
    detector: Detector
    length: int
    """Output frames."""
    require_face: bool = False
    """Whether a frame without a face is an error."""
    detector_threads: int = 1
    """Threads on which the detector is called; on more than one it must be thread-safe."""
    faceless: list[int] = field(default_factory=list)

    @property
    def source_length(self) -> int:
        """Frames to read: at least one whole call."""
        return max(self.length, self.model.frames)

    def all(self, source: SourceFrames) -> Iterator[Call]:
        """The calls, one stage after the other. Raises MediaError, FaceNotFound."""
        return self.calls(self.align(self.detect(self.check(source))))

    def check(self, source: SourceFrames) -> Iterator[tuple[int, int, Frame]]:
        """Output index, source index and frame. Raises MediaError for what is no frame."""
        shape: tuple[int, ...] | None = None
        for index, (number, frame) in enumerate(source):
            wrong = not isinstance(frame, np.ndarray) or frame.dtype != np.uint8
            if wrong or frame.ndim != 3 or frame.shape[2] != 3 or (shape is not None and frame.shape != shape):
                given = f"{frame.dtype}{list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
                raise MediaError(
                    f"frame {index} is {given}; every frame must be uint8 [height, width, 3] RGB of one size"
                )
            shape = frame.shape
            yield index, number, frame

    def detect(self, items: Iterator[tuple[int, int, Frame]]) -> Iterator[_Seen]:
        """Each source frame is looked at once, when it first comes."""
        known = 0

        def first_time(item: tuple[int, int, Frame]) -> tuple[int, int, Frame, bool]:
            nonlocal known
            new = item[1] == known
            known += new
            return (*item, new)

        def look(item: tuple[int, int, Frame, bool]) -> _Seen:
            index, source, frame, new = item
            return index, source, frame, self.detector(frame) if new else None

        return in_order(look, map(first_time, items), self.detector_threads)

    def align(self, items: Iterator[_Seen]) -> Iterator[Item]:
        """Crops of the face, where there is one. Raises FaceNotFound."""
        aligner = Aligner(self.model.resolution)
        # Affines of all source frames, for when they come again: 48 bytes each, NaN where there is no face.
        known = _Affines()
        found = False
        for index, source, frame, face in items:
            if source == len(known):
                known.append(None if face is None else aligner.affine(face.points))
            affine = known[source]
            found = found or affine is not None
            if affine is None and self.require_face:
                raise FaceNotFound(
                    f"no face in the frame at {source / FPS:.2f} s (frame {source}). "
                    "Cut it out, or let such frames pass through: --no-face pass"
                )
            crop = None if affine is None else crop_face(frame, affine, self.model.resolution)
            if affine is None and index < self.length:
                self.faceless.append(index)
            yield Item(index, frame, affine, crop)
        if not found:
            raise FaceNotFound(
                "no face was found in any frame. Check that the picture is upright and the face at least 40 pixels high"
            )

    def calls(self, items: Iterator[Item]) -> Iterator[Call]:
        """16 faces at a time."""
        frames = self.model.frames
        window: deque[Item] = deque(maxlen=frames)
        number, done = 0, 0
        for item in items:
            window.append(item)
            count = item.index + 1
            if count - done == frames or count == self.source_length:
                yield Call(number, list(window), count - done, _faces_of(list(window)))
                number, done = number + 1, count


class _Affines:
    """Affines by source index, packed."""

    def __init__(self) -> None:
        self._rows = np.full((256, 6), np.nan)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, affine: Affine | None) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, np.nan)])
        if affine is not None:
            self._rows[self._count] = affine.reshape(6)
        self._count += 1

    def __getitem__(self, index: int) -> Affine | None:
        if not 0 <= index < self._count:
            raise LsxError(f"source frame {index} came before the {self._count} frames that lead to it")
        row = self._rows[index]
        return None if np.isnan(row[0]) else row.reshape(2, 3).copy()


def _faces_of(items: list[Item]) -> NDArray[np.uint8] | None:
    """The crops of a call. A frame without a face borrows the nearest one's: the call's statistics stay a face's."""
    present = [i for i, item in enumerate(items) if item.crop is not None]
    if not present:
        return None
    nearest: list[Any] = [items[min((abs(p - i), p) for p in present)[1]].crop for i in range(len(items))]
    return np.stack(nearest)
