"""What is compared: chunks of a clip, or one chunk of seeded faces and sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.runtime.face_choice import Detector
from lsx.runtime.frame_pipeline import clip_chunks
from lsx.runtime.truth_faces import TruthFaces

__all__ = ["ChunkInput", "clip_inputs", "seeded_input", "seeded_samples"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkInput:
    """One chunk of the U-Net."""

    number: int
    first: int
    """Output frame of its first face, at 25 a second."""
    new: int
    """How many of its last frames no chunk before it had."""
    faces: NDArray[np.uint8]
    """uint8 [F, H, W, 3]."""
    truth: NDArray[np.uint8] | None = None
    """What ought to come of them, cut out alike, uint8 [F, H, W, 3]; None where it is not known."""


def seeded_samples(seconds: float = 1.2) -> NDArray[np.int16]:
    """Sound of gliding tones, int16 mono at 16 kHz."""
    time = np.arange(int(seconds * 16000)) / 16000
    tones = sum(np.sin(2 * np.pi * f * time * (1 + 0.1 * time)) for f in (220.0, 470.0, 1330.0))
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)
    return np.asarray(tones * swell * 6000, dtype=np.int16)


def seeded_input(model: ModelSpec) -> ChunkInput:
    """Smooth seeded pictures in place of faces, slowly changing from frame to frame."""
    blocks = model.resolution // 16
    still, moved = (named_noise(f"verify.{name}", (1, blocks, blocks, 3), 0) for name in ("still", "moved"))
    share = np.linspace(0, 1, model.frames, dtype=np.float32)[:, None, None, None]
    small = still * (1 - share) + moved * share
    faces = np.clip(small.repeat(16, 1).repeat(16, 2) * 40 + 127, 0, 255).astype(np.uint8)
    return ChunkInput(number=0, first=0, new=model.frames, faces=faces)


def clip_inputs(
    clip: tuple[Path, Path],
    detector: Detector,
    model: ModelSpec,
    chunks: int | None = None,
    truth: Path | None = None,
) -> Iterator[ChunkInput]:
    """The chunks that a run over a clip makes, or the first few. A frame without a face borrows the nearest one's.

    clip : video and sound; truth : a video of the same frames as the result ought to be.

    Raises MediaError, FaceNotFound; UsageError for a truth of other frames.
    """
    video, audio = clip
    length = -(-len(SoundReader(audio).samples()) // model.samples_per_frame)
    if chunks is not None:
        length = min(length, chunks * model.frames)
    length = max(length, model.frames)
    reader = VideoReader(video)
    known = None if truth is None else TruthFaces(truth, (reader.width, reader.height), length, model.resolution)
    for chunk in clip_chunks(reader.ping_pong(length), detector, model, length):
        faces = None if known is None else known.faces(chunk.items)  # of every chunk, as they come in order
        if chunk.faces is not None:
            yield ChunkInput(
                number=chunk.number, first=chunk.items[0].index, new=chunk.new, faces=chunk.faces, truth=faces
            )
