"""The chunk that a chunk goes on from: the last one of the same face and voice that has its first frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lsx.denoising.chunk_runner import Neighbour, PendingChunk
from lsx.runtime.chunker import Chunk
from lsx.runtime.face_choice import Slot
from lsx.runtime.run_state import MadeChunk

__all__ = ["LastChunks"]


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    slot: Slot
    voice: int
    frames: Sequence[int]
    pending: PendingChunk

    def is_before(self, chunk: Chunk) -> bool:
        same = self.slot == chunk.slot and self.voice == chunk.part.voice
        return same and chunk.items[0].index in self.frames


@dataclass(slots=True, eq=False)
class LastChunks:
    """The chunks of a run that later ones may have frames in common with."""

    _made: list[_Made] = field(default_factory=list)

    def before(self, chunk: Chunk) -> Neighbour | None:
        """What `chunk` goes on from; None where no chunk before it has frames of it.

        Where a frame counts in both, the share of the earlier one's latents is what the later one's pixels lack; where
        it counts in the earlier one alone, all of it.
        """
        first = chunk.items[0].index
        self._made = [made for made in self._made if made.frames[-1] >= first]
        for made in reversed(self._made):
            if made.is_before(chunk):
                shift = made.frames.index(first)
                share = 1 - chunk.weights
                share[len(share) - shift :] = 0
                return Neighbour(made.pending, shift, share)
        return None

    def add(self, chunk: Chunk, pending: PendingChunk) -> None:
        """Remember a chunk that was submitted; chunks come in the order of their frames."""
        self._made.append(_Made(chunk.slot, chunk.part.voice, [item.index for item in chunk.items], pending))

    def add_earlier(self, chunk: MadeChunk, pending: PendingChunk) -> None:
        """Remember a chunk that an earlier run made."""
        self._made.append(_Made(chunk.slot, chunk.voice, chunk.frames, pending))
