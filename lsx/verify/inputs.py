"""What is compared: calls of a clip, or one call of seeded faces and sound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsx.errors import FaceNotFound
from lsx.runtime.alignment import Aligner, Face, Frame, crop_face
from lsx.runtime.sound import SoundReader
from lsx.runtime.video import VideoReader
from lsx.seeded import normal
from lsx.specs import ModelSpec

__all__ = ["CallInput", "clip_inputs", "seeded_input", "seeded_samples"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallInput:
    """One call of the U-Net."""

    number: int
    first: int
    """Output frame of its first face, at 25 a second."""
    new: int
    """How many of its last frames no call before it had."""
    faces: NDArray[np.uint8]
    """uint8 [F, H, W, 3]."""


def seeded_samples(seconds: float = 1.2) -> NDArray[np.int16]:
    """Sound of gliding tones, int16 mono at 16 kHz."""
    time = np.arange(int(seconds * 16000)) / 16000
    tones = sum(np.sin(2 * np.pi * f * time * (1 + 0.1 * time)) for f in (220.0, 470.0, 1330.0))
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)
    return np.asarray(tones * swell * 6000, dtype=np.int16)


def seeded_input(model: ModelSpec) -> CallInput:
    """Smooth seeded pictures in place of faces, slowly changing from frame to frame."""
    blocks = model.resolution // 16
    still, moved = (normal(f"verify.{name}", (1, blocks, blocks, 3), 0) for name in ("still", "moved"))
    share = np.linspace(0, 1, model.frames, dtype=np.float32)[:, None, None, None]
    small = still * (1 - share) + moved * share
    faces = np.clip(small.repeat(16, 1).repeat(16, 2) * 40 + 127, 0, 255).astype(np.uint8)
    return CallInput(number=0, first=0, new=model.frames, faces=faces)


def clip_inputs(
    video: Path, audio: Path, detector: Callable[[Frame], Face | None], model: ModelSpec, calls: int | None = None
) -> Iterator[CallInput]:
    """The calls that a run over a clip makes, or the first few. A frame without a face borrows the nearest one's.

    Raises MediaError, FaceNotFound.
    """
    reader = VideoReader(video)
    length = -(-len(SoundReader(audio).samples()) // model.samples_per_frame)
    if calls is not None:
        length = min(length, calls * model.frames)
    length = max(length, model.frames)
    aligner = Aligner(model.resolution)
    affines: dict[int, NDArray[np.float64] | None] = {}
    window: deque[NDArray[np.uint8] | None] = deque(maxlen=model.frames)
    done = number = 0
    for index, (source, frame) in enumerate(reader.ping_pong(length)):
        if source not in affines:
            face = detector(frame)
            affines[source] = None if face is None else aligner.affine(face.points)
        affine = affines[source]
        window.append(None if affine is None else crop_face(frame, affine, model.resolution))
        count = index + 1
        if count - done == model.frames or count == length:
            faces = _completed(list(window))
            if faces is not None:
                yield CallInput(number=number, first=count - model.frames, new=count - done, faces=faces)
            number, done = number + 1, count
    if not any(affine is not None for affine in affines.values()):
        raise FaceNotFound(f"{video}: no face was found in any frame. Give a clip with a face")


def _completed(window: list[NDArray[np.uint8] | None]) -> NDArray[np.uint8] | None:
    present = [(i, crop) for i, crop in enumerate(window) if crop is not None]
    if not present:
        return None
    return np.stack([min(present, key=lambda p: (abs(p[0] - i), p[0]))[1] for i in range(len(window))])
