"""Frames to aligned faces: check, detect, align, each frame once and in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.tensors import Frame, described
from lsx.core.threaded_stages import in_order
from lsx.errors import FaceNotFound, LsxError, UsageError
from lsx.faces.alignment import Affine, AlignedFace, Aligner, crop_face
from lsx.faces.speaker import SpeakerChoice
from lsx.runtime.chunk_plan import BEGINNING, Border
from lsx.runtime.face_choice import FaceChoice, Slot

__all__ = ["AlignedFrame", "FaceAligner", "FoundFaces", "FrameFaces", "SourceFrames"]

SourceFrames = Iterator[tuple[int, Frame]]
"""Source index and frame of output frame 0, 1, 2, ..."""

_Seen = tuple[int, int, Frame, Any]
"""Output index, source index, frame, and what was seen in it where the frame is new."""


@dataclass(slots=True, eq=False)
class AlignedFrame:
    """One output frame on its way."""

    index: int
    frame: Frame
    faces: dict[Slot, AlignedFace]
    """The chosen ones."""


class FrameFaces(Protocol):
    """The source of a run's aligned faces: found in its frames, or kept from before."""

    advice: str
    """What a run that found no face says besides."""

    def look(self, frame: Frame) -> Any:
        """What is seen in a frame. Called once for each source frame, from any thread."""

    def aligned(self, source: int, seen: Any, frame: Frame) -> dict[Slot, AlignedFace]:
        """The faces of source frame `source`; `seen` is of its first time. Called in order, from one thread."""

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """The faces that it took, and the frames from which on it did."""

    def keep_history(self, marks: Collection[int]) -> None:
        """Keep from now on what is seen. marks : source frames after which the run may be left."""

    def history(self, last: int) -> dict[str, NDArray[Any]]:
        """What was seen up to the source frame `last`, and was not given before: arrays by name."""

    def go_on_after(self, sources: Sequence[int], history: Sequence[Mapping[str, NDArray[Any]]], width: int) -> None:
        """Go on as if the source frames `sources`, rising, had been aligned here, `width` pixels wide.

        history : of them, as `history` gave it, from the first to the last.
        """


class FoundFaces:
    """Faces as they are chosen in the frames of one clip, aligned and cut out."""

    def __init__(self, choice: FaceChoice, resolution: int) -> None:
        """choice : whose faces are looked for, and which is taken; resolution : pixels of an aligned face's side."""
        self.advice = choice.advice
        self._choice, self._resolution = choice, resolution
        # one for each slot: where a face lay in the frames before has a say in where it lies
        self._aligners = defaultdict[Slot, Aligner](lambda: Aligner(resolution))
        self._known = _KnownFaces()

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """The faces that it took."""
        return self._choice.choices

    def look(self, frame: Frame) -> Any:
        """What the choice sees."""
        return self._choice.look(frame)

    def keep_history(self, marks: Collection[int]) -> None:
        """Keep what the choice sees."""
        self._choice.keep_history(marks)

    def history(self, last: int) -> dict[str, NDArray[Any]]:
        """What the choice saw."""
        return self._choice.history(last)

    def go_on_after(self, sources: Sequence[int], history: Sequence[Mapping[str, NDArray[Any]]], width: int) -> None:
        """Choose and align once more, from what was seen."""
        seen = self._choice.go_on_after(history)
        for source in sources:
            self._choose(source, seen.get(source), width)

    def _choose(self, source: int, seen: Any, width: int) -> None:
        chosen = self._choice.choose(source, seen, width)
        self._known.add(source, {slot: self._aligners[slot].affine(face.points) for slot, face in chosen.items()})

    def aligned(self, source: int, seen: Any, frame: Frame) -> dict[Slot, AlignedFace]:
        """The chosen faces; of a frame that comes again those of its first time."""
        if source > self._known.latest:
            self._choose(source, seen, frame.shape[1])
        return {
            slot: AlignedFace(affine, crop_face(frame, affine, self._resolution))
            for slot, affine in self._known.at(source).items()
        }


@dataclass(slots=True, eq=False)
class FaceAligner:
    """One clip's faces. `faceless` holds the indices of output frames without a face, when all were aligned."""

    faces: FrameFaces
    length: int
    """Output frames."""
    require_face: bool = False
    """Whether a frame without a face is an error."""
    needed: NDArray[np.bool_] | None = None
    """Output frames in which a face is to speak, [length]; None is all. Others may well have none."""
    detector_threads: int = 1
    """Threads on which frames are looked at; on more than one that must be thread-safe."""
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    """Taken for the look at each frame: what several runs share the host's cores by."""
    clock: FrameClock = MODEL_CLOCK
    """The times at which the source's frames are shown."""
    faceless: list[int] = field(default_factory=list)
    border: Border = BEGINNING
    """The place at which the run goes on; the frames before it were aligned by an earlier one."""
    latest: int = -1
    """The last source frame that was looked at."""
    any_face: bool = False
    """Whether any frame has had a face."""

    def check(self, source: SourceFrames) -> Iterator[tuple[int, int, Frame]]:
        """Output index, source index and frame. Raises UsageError for what is no frame."""
        shape: tuple[int, ...] | None = None
        for index, (number, frame) in enumerate(source, self.border.read):
            wrong = not isinstance(frame, np.ndarray) or frame.dtype != np.uint8
            if wrong or frame.ndim != 3 or frame.shape[2] != 3 or (shape is not None and frame.shape != shape):
                raise UsageError(
                    f"frame {index} is {described(frame)}; every frame must be uint8 [height, width, 3] RGB of one size"
                )
            shape = frame.shape
            yield index, number, frame

    def detect(self, items: Iterator[tuple[int, int, Frame]]) -> Iterator[_Seen]:
        """Each source frame is looked at once, when it first comes: first times rise, whatever they leave out."""
        latest = self.latest

        def first_time(item: tuple[int, int, Frame]) -> tuple[int, int, Frame, bool]:
            nonlocal latest
            new = item[1] > latest
            latest = max(latest, item[1])
            return (*item, new)

        def look(item: tuple[int, int, Frame, bool]) -> _Seen:
            index, source, frame, new = item
            if not new:
                return index, source, frame, None
            with self.turn():
                return index, source, frame, self.faces.look(frame)

        return in_order(look, map(first_time, items), self.detector_threads)

    def align(self, items: Iterator[_Seen]) -> Iterator[AlignedFrame]:
        """Crops of the chosen faces. Raises FaceNotFound."""
        for index, source, frame, seen in items:
            faces = self.faces.aligned(source, seen, frame)
            self.any_face = self.any_face or bool(faces)
            new = self.border.frame <= index < self.length
            missing = not faces and (self.needed is None or (index < self.length and bool(self.needed[index])))
            if missing and self.require_face:
                raise FaceNotFound(
                    f"no face in the frame at {float(self.clock.seconds(source)):.2f} s (frame {source}). "
                    "Cut it out, or let such frames pass through: --no-face pass"
                )
            if missing and new:
                self.faceless.append(index)
            yield AlignedFrame(index, frame, faces)
        if not self.any_face:
            raise FaceNotFound(
                "no face was found in any frame. Check that the picture is upright and the face at least 40 pixels high"
                + self.faces.advice
            )


class _KnownFaces:
    """Affines of all source frames, for when they come again, packed: 48 bytes for each slot and frame."""

    def __init__(self) -> None:
        self._rows: dict[Slot, NDArray[np.float64]] = {}
        self._seen = np.zeros(256, bool)
        self.latest = -1
        """The last source index that was added."""

    def add(self, index: int, affines: Mapping[Slot, Affine]) -> None:
        while index >= len(self._seen):
            self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
        for slot, affine in affines.items():
            rows = self._rows.setdefault(slot, np.full((256, 6), np.nan))
            while index >= len(rows):
                rows = self._rows[slot] = np.concatenate([rows, np.full_like(rows, np.nan)])
            rows[index] = affine.reshape(6)
        self._seen[index] = True
        self.latest = index

    def at(self, index: int) -> dict[Slot, Affine]:
        """The affines of one source frame, by slot. Raises LsxError for a frame that was not looked at."""
        if not 0 <= index <= self.latest or not self._seen[index]:
            raise LsxError(f"source frame {index} came after frame {self.latest}, and was not looked at before")
        there = {slot: rows[index] for slot, rows in self._rows.items() if index < len(rows)}
        return {slot: row.reshape(2, 3).copy() for slot, row in there.items() if not np.isnan(row[0])}
