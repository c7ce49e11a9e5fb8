"""The chunks of frames that a clip is made of, and what each counts in every frame: numbers alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BEGINNING", "Border", "Part", "PlannedChunk", "chunk_count", "counted", "planned_chunks"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Output frames start..stop that one voice speaks in."""

    start: int
    stop: int
    voice: int = 0
    """Number of the sound."""
    rule: int = 0
    """Number of the rule that says whose mouth moves."""
    speech: NDArray[np.float32] | None = None
    """Share of what is made in each of its frames, [stop - start]; where it is 0 the frame stays as it is."""

    def share(self, index: int) -> float:
        """The share of what is made in the output frame `index`, 0..1."""
        return 1.0 if self.speech is None else float(self.speech[index - self.start])


class Border(NamedTuple):
    """A place in a run at which it may be left, and gone on from: no chunk before it counts in a frame after it."""

    frame: int
    """The first output frame after it."""
    chunk: int
    """The number of the first chunk after it."""
    read: int
    """The first output frame that the chunks after it are made of, or pass on."""


BEGINNING = Border(0, 0, 0)


def counted(weights: NDArray[np.float32]) -> range:
    """Positions from the first to the last that counts; none where none does."""
    places = np.flatnonzero(weights)
    return range(int(places[0]), int(places[-1]) + 1) if len(places) else range(0)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedChunk:
    """One pass of the U-Net's loop: as many frames as it takes, of which those that count are kept."""

    part: Part
    frames: range
    """Output frames, evenly spaced."""
    weights: NDArray[np.float32]
    """What the chunk's pixels count in each of its frames, 0..1: float32 [F]. Over the chunks of a part they add up
    to 1 in each of its frames."""

    @property
    def kept(self) -> range:
        """The output frames from the first to the last that it counts in."""
        kept = counted(self.weights)
        return self.frames[kept.start : kept.stop]

    @property
    def heard(self) -> bool:
        """Whether anything is to be made in the frames that it counts in."""
        return self.part.speech is None or bool(self.part.speech[np.array(self.kept) - self.part.start].any())


def planned_chunks(
    parts: Sequence[Part], frames: int, readable: int, overlap: int = 0, stride: int = 1
) -> Iterator[PlannedChunk]:
    """The chunks of `frames` frames that `parts` need, in the order in which their last frames come.

    A part's last chunk ends with it, and what it has in common with the one before is the earlier one's, but for the
    last `overlap` frames of that, in which one leads over to the other. A part that is shorter than a chunk is
    completed with the frames before it, or, where there are none, after it.

    readable : output frames that can be read, at least `frames` x `stride`; a part may end before. stride : a chunk has
    every `stride`-th frame, and those between are other chunks', so that frames that come faster than the model knows
    them are spaced as it does.
    """
    phases = [_phase(part, frames, readable, overlap, (at, stride)) for part in parts for at in range(stride)]
    return heapq.merge(*phases, key=lambda chunk: (chunk.frames[-1], chunk.frames.start, chunk.part.voice))


def chunk_count(part: Part, frames: int, overlap: int = 0, stride: int = 1) -> int:
    """How many chunks a part has."""
    phases = (_numbered(part, at, stride) for at in range(stride))
    lengths = [phase.stop - phase.start for phase in phases if phase.start < phase.stop]
    return sum(1 + max(-(-(length - frames) // (frames - overlap)), 0) for length in lengths)


def _numbered(part: Part, phase: int, stride: int) -> Part:
    """A part's frames `phase`, `phase` + `stride`, ..., numbered as frames of their own."""
    return Part(-(-(part.start - phase) // stride), -(-(part.stop - phase) // stride))


def _phase(part: Part, frames: int, readable: int, overlap: int, every: tuple[int, int]) -> Iterator[PlannedChunk]:
    """The chunks of every `stride`-th frame from `phase` on."""
    phase, stride = every
    own = _numbered(part, phase, stride)
    if own.start >= own.stop:
        return
    for chunk in _chunks_of(own, frames, -(-(readable - phase) // stride), overlap):
        first, stop = phase + stride * chunk.frames.start, phase + stride * chunk.frames.stop
        yield PlannedChunk(part, range(first, stop, stride), chunk.weights)


def _chunks_of(part: Part, frames: int, readable: int, overlap: int) -> Iterator[PlannedChunk]:
    last = min(max(part.stop - frames, 0), readable - frames)
    begin, start = part.start, min(part.start, last)
    while True:
        weights = np.zeros(frames, np.float32)
        weights[begin - start : min(part.stop, start + frames) - start] = 1
        if begin > part.start:
            weights[begin - start : begin - start + overlap] = _ramp(overlap)
        if start < last:
            weights[frames - overlap :] = 1 - _ramp(overlap)
        yield PlannedChunk(part, range(start, start + frames), weights)
        if start >= last:
            return
        begin = start + frames - overlap
        start = min(begin, last)


def _ramp(overlap: int) -> NDArray[np.float32]:
    return np.arange(1, overlap + 1, dtype=np.float32) / np.float32(overlap + 1)
