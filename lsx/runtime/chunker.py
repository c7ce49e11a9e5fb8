"""Aligned frames to chunks: as many faces as the U-Net takes at a time.

The last chunk covers the clip's last 16 frames, and only its new frames are kept; a clip of fewer is completed by
ping-pong, and what was added is dropped at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.denoising.chunk_runner import PendingChunk
from lsx.runtime.face_aligner import AlignedFrame

__all__ = ["Chunk", "Chunker"]


@dataclass(slots=True, eq=False)
class Chunk:
    """What one pass of the U-Net's loop makes: `F` frames, of which the last `new` are kept."""

    number: int
    items: list[AlignedFrame]
    new: int
    faces: NDArray[np.uint8] | None
    """uint8 [F, H, W, 3]; None where nothing is to be made: no frame has a face, or all are silent."""
    pending: PendingChunk | None = None
    """The chunk while it is computed."""
    pixels: NDArray[Any] | None = None
    """What was computed, levels [F, H, W, 3]; this run's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunker:
    """Cuts a clip into chunks."""

    frames: int
    """Frames of a chunk, F."""
    length: int
    """Output frames."""
    speech: NDArray[np.float32] | None = None
    """Share of each output frame that is made; where it is 0 the frame stays as it is. None is 1 everywhere."""

    @property
    def source_length(self) -> int:
        """Frames to read: at least one whole chunk."""
        return max(self.length, self.frames)

    @property
    def count(self) -> int:
        """Chunks of the clip."""
        return -(-self.source_length // self.frames)

    def share(self, index: int) -> float:
        """Of what is made in the output frame `index`, 0..1."""
        return 1.0 if self.speech is None else float(self.speech[index])

    @property
    def silent(self) -> int:
        """Chunks that are not computed, because all their frames are silent."""
        if self.speech is None:
            return 0
        edges = [*range(0, self.source_length, self.frames), self.source_length]
        return sum(not self.speech[start:stop].any() for start, stop in pairwise(edges))

    def chunks(self, items: Iterator[AlignedFrame]) -> Iterator[Chunk]:
        """`F` faces at a time."""
        window: deque[AlignedFrame] = deque(maxlen=self.frames)
        number, done = 0, 0
        for item in items:
            window.append(item)
            count = item.index + 1
            if count - done == self.frames or count == self.source_length:
                made = self.speech is None or bool(self.speech[done:count].any())
                yield Chunk(number, list(window), count - done, _faces_of(list(window)) if made else None)
                number, done = number + 1, count


def _faces_of(items: list[AlignedFrame]) -> NDArray[np.uint8] | None:
    """The crops of a chunk. A frame without a face borrows the nearest one's: the chunk's statistics stay a face's."""
    present = [i for i, item in enumerate(items) if item.crop is not None]
    if not present:
        return None
    nearest: list[Any] = [items[min((abs(p - i), p) for p in present)[1]].crop for i in range(len(items))]
    return np.stack(nearest)
