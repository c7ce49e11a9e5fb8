"""Which chunks of frames a clip is made of, and what each counts in every frame: numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Part", "PlannedChunk", "planned_chunks"]


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
        """Of what is made in the output frame `index`, 0..1."""
        return 1.0 if self.speech is None else float(self.speech[index - self.start])


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
        counted = np.flatnonzero(self.weights)
        return self.frames[int(counted[0]) : int(counted[-1]) + 1]

    @property
    def heard(self) -> bool:
        """Whether anything is to be made in the frames that it counts in."""
        return self.part.speech is None or bool(self.part.speech[np.array(self.kept) - self.part.start].any())


def planned_chunks(
    parts: Sequence[Part], frames: int, readable: int, overlap: int = 0, stride: int = 1
) -> list[PlannedChunk]:
    """The chunks of `frames` frames that `parts` need, in the order in which their last frames come.

    A part's last chunk ends with it, and what it has in common with the one before is the earlier one's, but for the
    last `overlap` frames of that, in which one leads over to the other. A part that is shorter than a chunk is
    completed with the frames before it, or, where there are none, after it.

    readable : output frames that can be read, at least `frames` x `stride`; a part may end before. stride : a chunk has
    every `stride`-th frame, and those between are other chunks', so that frames that come faster than the model knows
    them are spaced as it does.
    """
    planned = [
        chunk
        for part in parts
        for phase in range(stride)
        for chunk in _phase(part, frames, readable, overlap, (phase, stride))
    ]
    return sorted(planned, key=lambda chunk: (chunk.frames[-1], chunk.frames.start, chunk.part.voice))


def _phase(part: Part, frames: int, readable: int, overlap: int, every: tuple[int, int]) -> list[PlannedChunk]:
    """The chunks of every `stride`-th frame from `phase` on, which are numbered as frames of their own for that."""
    phase, stride = every
    own = Part(-(-(part.start - phase) // stride), -(-(part.stop - phase) // stride))
    if own.start >= own.stop:
        return []
    chunks = _chunks_of(own, frames, -(-(readable - phase) // stride), overlap)
    spread = (range(phase + stride * c.frames.start, phase + stride * c.frames.stop, stride) for c in chunks)
    return [PlannedChunk(part, their, chunk.weights) for their, chunk in zip(spread, chunks, strict=True)]


def _chunks_of(part: Part, frames: int, readable: int, overlap: int) -> list[PlannedChunk]:
    last = min(max(part.stop - frames, 0), readable - frames)
    starts = [*range(part.start, last, frames - overlap), last] if part.start < last else [last]
    chunks = []
    for number, start in enumerate(starts):
        begin = part.start if number == 0 else starts[number - 1] + frames - overlap
        weights = np.zeros(frames, np.float32)
        weights[begin - start : min(part.stop, start + frames) - start] = 1
        if number > 0:
            weights[begin - start : begin - start + overlap] = _ramp(overlap)
        if number + 1 < len(starts):
            weights[frames - overlap :] = 1 - _ramp(overlap)
        chunks.append(PlannedChunk(part, range(start, start + frames), weights))
    return chunks


def _ramp(overlap: int) -> NDArray[np.float32]:
    return np.arange(1, overlap + 1, dtype=np.float32) / np.float32(overlap + 1)
