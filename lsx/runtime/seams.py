"""How far the mouth jumps where one chunk ends and the next begins, beside how far it moves within them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SeamMeter"]


@dataclass(slots=True, eq=False)
class SeamMeter:
    """Mean absolute change of the mouth's region from frame to frame, across borders of chunks and inside them.

    Frames that several chunks were mixed for lie across a border, as do a border's two sides. Where a chunk has every
    `stride`-th frame alone, a frame is compared with the one so many before it.
    """

    stride: int = 1

    across: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Sum of the changes, in levels, and their number."""
    inside: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _before: deque[Mapping[Any, tuple[NDArray[np.float32], Hashable]]] = field(default_factory=deque)

    def add(self, faces: Mapping[Any, tuple[NDArray[Any], Hashable]]) -> None:
        """The next frame's made faces, levels [R, R, 3], by their slot, and the chunk of each, None of several."""
        now = {slot: (_mouth(pixels), chunk) for slot, (pixels, chunk) in faces.items()}
        ago = self._before.popleft() if len(self._before) == self.stride else {}
        for slot, (mouth, chunk) in now.items():
            if slot in ago:
                earlier, before = ago[slot]
                kind = self.inside if chunk is not None and chunk == before else self.across
                kind[0] += float(np.abs(mouth - earlier).mean())
                kind[1] += 1
        self._before.append(now)

    @property
    def ratio(self) -> float | None:
        """Change across borders over that inside chunks: 1 where nothing shows. None where there is none to compare."""
        if not (self.across[1] and self.inside[1] and self.inside[0]):
            return None
        return (self.across[0] / self.across[1]) / (self.inside[0] / self.inside[1])


def _mouth(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """The region of the mouth in an aligned face: the lower half's middle."""
    size = pixels.shape[0]
    region = pixels[size // 2 : 7 * size // 8, size // 4 : 3 * size // 4]
    return np.asarray(np.clip(region, 0, 255), np.float32)
