"""Aligned frames to chunks: as many faces as the U-Net takes at a time, and the frames that are finished with each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.denoising.chunk_runner import PendingChunk
from lsx.faces.alignment import AlignedFace
from lsx.runtime.chunk_plan import BEGINNING, Border, Part, PlannedChunk, chunk_count, counted, planned_chunks
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.face_choice import Slot

__all__ = ["Chunk", "Chunker", "faces_of_slot"]


@dataclass(slots=True, eq=False)
class Chunk:
    """One pass of the U-Net's loop over the faces of one slot, and the output frames that are finished with it."""

    number: int
    """Number of its place in the plan; the faces of several slots there share it."""
    part: Part
    slot: Slot
    items: list[AlignedFrame]
    """The frames of the pass, F; none where nothing is made."""
    weights: NDArray[np.float32]
    """What its pixels count in each of them, 0..1: [F]."""
    faces: NDArray[np.uint8] | None
    """uint8 [F, H, W, 3]; None where nothing is to be made: no frame has a face, or all are silent."""
    moments: NDArray[np.float32] | None
    """Moments of the faces, float32 [F, 2, 2, 4, h, w], where they were encoded before."""
    done: list[AlignedFrame]
    """The output frames, in order, that no later chunk counts in."""
    last: bool = False
    """Whether it is the last of its place in the plan: the faces of all slots there are done with it."""
    pending: PendingChunk | None = None
    """What its runner knows it by, where it is computed."""
    pixels: NDArray[Any] | None = None
    """What was computed, levels [F, H, W, 3]; this run's own."""

    @property
    def new(self) -> int:
        """Frames that it counts in."""
        return len(self.kept)

    @property
    def kept(self) -> range:
        """Positions among its frames, from the first to the last that it counts in."""
        return counted(self.weights)


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
    """Parts of the result, each with its speaker; None is one voice throughout."""

    @property
    def spoken(self) -> Sequence[Part]:
        """The parts in which someone speaks."""
        return [Part(0, self.length)] if self.parts is None else self.parts

    def plan(self) -> Iterator[PlannedChunk]:
        """All chunks, in the order in which they are made; a stream may have any number of them."""
        return planned_chunks(self.spoken, self.frames, self.source_length, self.overlap, self.stride)

    @property
    def source_length(self) -> int:
        """Frames to read: at least one whole chunk."""
        return max(self.length, self.frames * self.stride)

    @property
    def count(self) -> int:
        """Chunks of the clip."""
        return sum(chunk_count(part, self.frames, self.overlap, self.stride) for part in self.spoken)

    @property
    def whole(self) -> int:
        """Chunks of one voice from the first frame to the last, without an overlap."""
        return chunk_count(Part(0, self.length), self.frames, 0, self.stride)

    @property
    def silent(self) -> int:
        """Chunks that are not computed, because all their frames are silent."""
        if all(part.speech is None for part in self.spoken):
            return 0
        return sum(not planned.heard for planned in self.plan())

    def borders(self, every: int) -> list[Border]:
        """The borders at which the run may be left: after about `every` frames each, the last at least half as long."""
        plan = _Upcoming(self.plan(), self.frames * self.stride, self.source_length)
        found: list[Border] = []
        number, first, wanted = 0, 0, every
        while True:
            # frames that nothing is made of go on by as many as a chunk has; what is left of them, with the next chunk
            last = min(plan.counted, self.length)
            if plan.is_going_on:
                last = first + (last - first) // self.frames * self.frames
            while max(wanted, first) <= last and max(wanted, first) + every / 2 <= self.length:
                place = max(wanted, first)
                found.append(Border(place, number, min(plan.made_of, place)))
                wanted = place + every
            planned = plan.following()
            if planned is None:
                return found
            number += 1
            first = min(plan.counted, planned.frames[-1] + 1)

    def chunks(self, items: Iterator[AlignedFrame], border: Border = BEGINNING) -> Iterator[Chunk]:
        """The planned chunks, as soon as their last frames have come.

        border : where the run goes on; `items` come from its first frame to read on.
        """
        queue = _FrameQueue(self.length, border.frame)
        planned_after = islice(self.plan(), border.chunk, None)
        plan = _Upcoming(planned_after, self.frames * self.stride, self.source_length)
        number = border.chunk
        for item in items:
            queue.add(item)
            while (planned := plan.due(item.index)) is not None:
                made = list(self._made(planned, number, queue))
                number += 1
                made[-1].last = True
                made[-1].done = queue.finished(plan.counted)
                queue.forget(plan.made_of)
                yield from made
            # what nothing is made of goes on at once, a chunk's worth at a time
            if min(plan.counted, item.index + 1) - queue.first >= self.frames:
                yield _nothing(number, queue.finished(plan.counted))
                queue.forget(plan.made_of)
        if rest := queue.finished(self.length):
            yield _nothing(number, rest)

    def _made(self, planned: PlannedChunk, number: int, queue: _FrameQueue) -> Iterator[Chunk]:
        """A planned chunk's: one for each slot with a face in it, or one of nothing."""
        items = queue.between(planned.frames)
        slots = sorted({slot for item in items for slot in item.faces if slot.rule == planned.part.rule})
        if not slots or not planned.heard:
            slots = [Slot(planned.part.rule, 0)]
        for slot in slots:
            faces = faces_of_slot(items, slot) if planned.heard else []
            crops = np.stack([face.crop for face in faces]) if faces else None
            moments = [face.moments for face in faces if face.moments is not None]
            kept = np.stack(moments) if moments else None
            yield Chunk(number, planned.part, slot, items, planned.weights, crops, kept, [])


def _nothing(number: int, done: list[AlignedFrame]) -> Chunk:
    return Chunk(number, Part(0, 0), Slot(0, 0), [], np.zeros(0, np.float32), None, None, done)


class _Upcoming:
    """The chunks that are still to be made, read ahead as far as one can begin before the next."""

    def __init__(self, plan: Iterator[PlannedChunk], span: int, end: int) -> None:
        """span : frames from a chunk's first to its last; end : what is to come where nothing is."""
        self._plan, self._span, self._end = plan, span, end
        self._ahead: deque[PlannedChunk] = deque()
        self._look()

    def _look(self) -> None:
        while not self._ahead or self._ahead[-1].frames[-1] < self._ahead[0].frames[-1] + self._span:
            planned = next(self._plan, None)
            if planned is None:
                break
            self._ahead.append(planned)
        self.counted = min((planned.kept.start for planned in self._ahead), default=self._end)
        """The first frame that they count in."""
        self.made_of = min((planned.frames.start for planned in self._ahead), default=self._end)
        """The first frame that they are made of."""

    @property
    def is_going_on(self) -> bool:
        """Whether there is a chunk to come."""
        return bool(self._ahead)

    def due(self, frame: int) -> PlannedChunk | None:
        """The next chunk, where its last frame is this one; then it is no longer among those to come."""
        if not self._ahead or self._ahead[0].frames[-1] != frame:
            return None
        return self.following()

    def following(self) -> PlannedChunk | None:
        """The next chunk, which is then no longer among those to come; None where there is none."""
        if not self._ahead:
            return None
        planned = self._ahead.popleft()
        self._look()
        return planned


class _FrameQueue:
    """Frames that have come: those that are still needed, and which of them are still to be given on."""

    def __init__(self, length: int, first: int) -> None:
        self._length = length
        self._held: dict[int, AlignedFrame] = {}
        self._come = 0
        self.first = first
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


def faces_of_slot(items: list[AlignedFrame], slot: Slot) -> list[AlignedFace]:
    """The faces of a chunk. A frame without one borrows the nearest one's: the chunk's statistics stay a face's."""
    present = [i for i, item in enumerate(items) if slot in item.faces]
    if not present:
        return []
    return [items[min((abs(p - i), p) for p in present)[1]].faces[slot] for i in range(len(items))]
