"""A whole clip that every setting of a sweep makes, so that each is judged by what it does to lips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_runner import ChunkRunner, seeded_noise
from lsx.denoising.executor_cache import ExecutorCache
from lsx.engines.loading import load_engine
from lsx.errors import FaceNotFound
from lsx.faces.detector import opened_detector
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.metrics.images import levels_of
from lsx.metrics.lips import LipFigures, lip_figures
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.frame_pipeline import clip_chunks
from lsx.runtime.truth_faces import TruthFaces

if TYPE_CHECKING:
    from lsx.metrics.stable_sync import StableSync, StableSyncFigures

__all__ = ["ClipChunk", "JudgedClip", "Verdict", "judged_clip", "stable_sync_judge"]


@dataclass(frozen=True, slots=True, eq=False)
class ClipChunk:
    """One chunk of the clip, and what ought to come of it where that is known."""

    faces: NDArray[np.uint8]
    """uint8 [F, H, W, 3]."""
    tokens: NDArray[np.float32]
    """float32 [F, S, D]."""
    new: int
    """How many of its last frames no chunk before it had."""
    heard: NDArray[np.int16]
    """The new frames' sound, 16 kHz."""
    truth: NDArray[np.uint8] | None
    """uint8 [F, H, W, 3]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a setting does to the lips; None where there is nothing to judge by."""

    lips: LipFigures | None = None
    stable_sync: StableSyncFigures | None = None


@dataclass(frozen=True, slots=True, eq=False)
class JudgedClip:
    """The chunks of a clip, and StableSyncNet where its weights are given."""

    chunks: tuple[ClipChunk, ...]
    judge: StableSync | None

    def verdict(self, executors: ExecutorCache, bundle: Bundle, options: SamplingOptions) -> Verdict:
        """Make the clip with these options, and judge it."""
        runner = ChunkRunner(executors.lender(options), bundle.model, seeded_noise(options.seed), options.guidance)
        made = []
        for number, chunk in enumerate(self.chunks):
            pixels = runner.result(runner.submit(chunk.faces, chunk.tokens, number))["pixels"]
            made.append(levels_of(pixels)[-chunk.new :])
        faces = np.concatenate(made)
        known = [chunk.truth[-chunk.new :] for chunk in self.chunks if chunk.truth is not None]
        return Verdict(
            lips=lip_figures(faces, np.concatenate(known)) if known else None,
            stable_sync=None
            if self.judge is None
            else self.judge.judge(faces, np.concatenate([chunk.heard for chunk in self.chunks])),
        )


def judged_clip(
    bundle: Bundle, video: Path, audio: Path, *, truth: Path | None = None, judge: StableSync | None = None
) -> JudgedClip:
    """Return every chunk of a clip that has a face.

    Raises MediaError, FaceNotFound; UsageError for a truth of other frames.
    """
    model, samples, reader = bundle.model, SoundReader(audio).samples(), VideoReader(video)
    hop = model.samples_per_frame
    length = max(-(-len(samples) // hop), model.frames)
    sound = np.concatenate([samples, np.zeros(length * hop - len(samples), np.int16)]).reshape(length, hop)
    known = None if truth is None else TruthFaces(truth, (reader.width, reader.height), length, model.resolution)
    chunks = []
    with opened_detector(bundle) as detector, load_engine(bundle, "audio_encoder") as encoder:
        tokens = AudioTokens(encoder, samples, model)
        for chunk in clip_chunks(reader.ping_pong(length), detector, model, length):
            expected = None if known is None else known.faces(chunk.items)
            if chunk.faces is not None:
                frames = [item.index for item in chunk.items]
                heard = sound[frames[-chunk.new :]].reshape(-1)
                chunks.append(ClipChunk(chunk.faces, tokens.tokens(frames), chunk.new, heard, expected))
    if not chunks:
        raise FaceNotFound(f"{video}: no face in it. Take a clip that shows one")
    return JudgedClip(tuple(chunks), judge)


def stable_sync_judge(folder: Path | None) -> StableSync | None:
    """StableSyncNet of a folder of auxiliary weights, None without one. Raises UsageError, CheckpointError."""
    if folder is None:
        return None
    from lsx.metrics.stable_sync import StableSync  # PyTorch, which a serving host has not

    return StableSync.in_folder(folder)
