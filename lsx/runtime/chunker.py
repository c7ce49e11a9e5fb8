"""Aligned frames to chunks: as many faces as the U-Net takes at a time, and the frames that are finished with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.denoising.chunk_runner import PendingChunk
from lsx.runtime.chunk_plan import Part, PlannedChunk, planned_chunks
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.face_choice import Slot

__all__ = ["Chunk", "Chunker"]


@dataclass(slots=True, eq=False)
class Chunk:
    """One pass of the U-Net's loop over the faces of one slot, and the output frames that are finished with it."""

    number: int
    """Of its place in the plan; the faces of several slots there share it."""
    part: Part
    slot: Slot
    items: list[AlignedFrame]
    """The frames of the pass, F; none where nothing is made."""
    weights: NDArray[np.float32]
    """What its pixels count in each of them, 0..1: [F]."""
    faces: NDArray[np.uint8] | None
    """uint8 [F, H, W, 3]; None where nothing is to be made: no frame has a face, or all are silent."""
    done: list[AlignedFrame]
    """The output frames, in order, that no later chunk counts in."""
    pending: PendingChunk | None = None
    """The chunk while it is computed."""
    pixels: NDArray[Any] | None = None
    """What was computed, levels [F, H, W, 3]; this run's own."""

    @property
    def new(self) -> int:
        """Frames that it counts in."""
        return len(self.kept)

    @property
    def kept(self) -> range:
        """Positions among its frames, from the first to the last that it counts in."""
        counted = np.flatnonzero(self.weights)
        return range(int(counted[0]), int(counted[-1]) + 1) if len(counted) else range(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunker:
    """Cuts a clip into chunks."""

    frames: int
    """Frames of a chunk, F."""
    length: int
    """Output frames."""
    overlap: int = 0
    """Frames that neighbouring chunks have in common, and in which one leads over to the other."""
    stride: int = 1
    """A chunk has every `stride`-th frame."""
    parts: Sequence[Part] | None = None
    """Who speaks when; None is one voice throughout."""
    plan: tuple[PlannedChunk, ...] = field(init=False)
    """All chunks, in the order in which they are made."""

    def __post_init__(self) -> None:
        parts = [Part(0, self.length)] if self.parts is None else self.parts
        planned = planned_chunks(parts, self.frames, self.source_length, self.overlap, self.stride)
        object.__setattr__(self, "plan", tuple(planned))

    @property
    def source_length(self) -> int:
        """Frames to read: at least one whole chunk."""
        return max(self.length, self.frames * self.stride)

    @property
    def count(self) -> int:
        """Chunks of the clip."""
        return len(self.plan)

    @property
    def whole(self) -> int:
        """Chunks of one voice from the first frame to the last, without an overlap."""
        return len(planned_chunks([Part(0, self.length)], self.frames, self.source_length, 0, self.stride))

    @property
    def silent(self) -> int:
        """Chunks that are not computed, because all their frames are silent."""
        return sum(not planned.heard for planned in self.plan)

    def chunks(self, items: Iterator[AlignedFrame]) -> Iterator[Chunk]:
        """The planned chunks, as soon as their last frames have come."""
        queue = _FrameQueue(self.length)
        # the first frame that the chunks from each one on count in, and the first that they are made of
        ends = (self.source_length,)
        counted = _least_to_come([planned.kept.start for planned in self.plan], ends)
        made_of = _least_to_come([planned.frames.start for planned in self.plan], ends)
        number = 0
        for item in items:
            queue.add(item)
            while number < len(self.plan) and self.plan[number].frames[-1] == item.index:
                made = list(self._made(number, queue))
                number += 1
                made[-1].done = queue.finished(counted[number])
                queue.forget(made_of[number])
                yield from made
            # what nothing is made of goes on at once, a chunk's worth at a time
            if min(counted[number], item.index + 1) - queue.first >= self.frames:
                yield _nothing(number, queue.finished(counted[number]))
                queue.forget(made_of[number])
        if rest := queue.finished(self.length):
            yield _nothing(number, rest)

    def _made(self, number: int, queue: _FrameQueue) -> Iterator[Chunk]:
        """A planned chunk's: one for each slot with a face in it, or one of nothing."""
        planned = self.plan[number]
        items = queue.between(planned.frames)
        slots = sorted({slot for item in items for slot in item.faces if slot.rule == planned.part.rule})
        if not slots or not planned.heard:
            slots = [Slot(planned.part.rule, 0)]
        for slot in slots:
            faces = _faces_of(items, slot) if planned.heard else None
            yield Chunk(number, planned.part, slot, items, planned.weights, faces, [])


def _nothing(number: int, done: list[AlignedFrame]) -> Chunk:
    return Chunk(number, Part(0, 0), Slot(0, 0), [], np.zeros(0, np.float32), None, done)


def _least_to_come(values: list[int], ends: tuple[int]) -> list[int]:
    """For each place, and the one after the last, the least of the values from there on."""
    least = np.minimum.accumulate(np.array([*values, *ends])[::-1])[::-1]
    return [int(value) for value in least]


class _FrameQueue:
    """Frames that have come: those that are still needed, and which of them are still to be given on."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._held: dict[int, AlignedFrame] = {}
        self._come = 0
        self.first = 0
        """The first frame that was not given on."""

    def add(self, item: AlignedFrame) -> None:
        self._held[item.index] = item
        self._come = item.index + 1

    def between(self, frames: range) -> list[AlignedFrame]:
        return [self._held[index] for index in frames]

    def finished(self, bound: int) -> list[AlignedFrame]:
        """The frames before `bound` that were not given on, as far as they have come."""
        stop = min(bound, self._come, self._length)
        done = [self._held[index] for index in range(self.first, stop)]
        self.first = max(self.first, stop)
        return done

    def forget(self, bound: int) -> None:
        """Let go of the frames before `bound` that were given on."""
        for index in list(self._held):
            if index >= min(bound, self.first):
                break
            del self._held[index]


def _faces_of(items: list[AlignedFrame], slot: Slot) -> NDArray[np.uint8] | None:
    """The crops of a chunk. A frame without a face borrows the nearest one's: the chunk's statistics stay a face's."""
    present = [i for i, item in enumerate(items) if slot in item.faces]
    if not present:
        return None
    nearest: list[Any] = [items[min((abs(p - i), p) for p in present)[1]].faces[slot].crop for i in range(len(items))]
    return np.stack(nearest)
