"""What a run has at a border besides finished frames: enough to go on from there, in arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.runtime.face_choice import Slot

__all__ = ["MadeChunk", "MadeFace", "RunState"]


@dataclass(slots=True, eq=False)
class MadeFace:
    """A face of one frame, as far as it is made."""

    pixels: NDArray[Any]
    share: float
    """Share of the face in the frame, 0..1."""
    chunk: int | None
    """Number of the one chunk that made it; None where several did."""


@dataclass(frozen=True, slots=True, eq=False)
class MadeChunk:
    """A chunk that a later one may go on from."""

    slot: Slot
    voice: int
    frames: tuple[int, ...]
    """Output frames, [F]."""
    steps: NDArray[np.float32]
    """Its latents after each step, [steps + 1, 4, F, h, w]."""


@dataclass(slots=True, eq=False)
class RunState:
    """The beginning of a run has an empty one."""

    faceless: list[int] = field(default_factory=list)
    """Output frames before the border without a face."""
    any_face: bool = False
    computed: int = 0
    """Chunks that were computed, one for each face."""
    repeated: int = 0
    """Chunks that were done again."""
    across: list[float] = field(default_factory=lambda: [0.0, 0.0])
    inside: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """The sums of SeamMeter."""
    made: dict[int, dict[Slot, MadeFace]] = field(default_factory=dict)
    """Faces of output frames after the border, as far as the chunks before it made them."""
    chunks: list[MadeChunk] = field(default_factory=list)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, as `of` reads it."""
        faces = [(index, slot, face) for index, slots in self.made.items() for slot, face in slots.items()]
        numbers = [(index, *slot, -1 if face.chunk is None else face.chunk) for index, slot, face in faces]
        found: dict[str, NDArray[Any]] = {
            "faceless": np.array(self.faceless, np.int64),
            "counts": np.array([self.any_face, self.computed, self.repeated], np.int64),
            "seams": np.array([self.across, self.inside], np.float64),
            "made": np.array(numbers, np.int64).reshape(-1, 4),
            "shares": np.array([face.share for _, _, face in faces], np.float64),
            "chunks": np.array([(*chunk.slot, chunk.voice) for chunk in self.chunks], np.int64).reshape(-1, 3),
        }
        found |= {f"pixels{number}": face.pixels for number, (_, _, face) in enumerate(faces)}
        for number, chunk in enumerate(self.chunks):
            found[f"frames{number}"], found[f"steps{number}"] = np.array(chunk.frames, np.int64), chunk.steps
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> RunState:
        """The state that `arrays` gave."""
        any_face, computed, repeated = arrays["counts"].tolist()
        across, inside = arrays["seams"].tolist()
        made: dict[int, dict[Slot, MadeFace]] = {}
        for number, (index, rule, place, chunk) in enumerate(arrays["made"].tolist()):
            face = MadeFace(arrays[f"pixels{number}"], float(arrays["shares"][number]), None if chunk < 0 else chunk)
            made.setdefault(index, {})[Slot(rule, place)] = face
        chunks = [
            MadeChunk(Slot(rule, place), voice, tuple(arrays[f"frames{number}"].tolist()), arrays[f"steps{number}"])
            for number, (rule, place, voice) in enumerate(arrays["chunks"].tolist())
        ]
        return cls(
            faceless=arrays["faceless"].tolist(),
            any_face=bool(any_face),
            computed=computed,
            repeated=repeated,
            across=across,
            inside=inside,
            made=made,
            chunks=chunks,
        )
