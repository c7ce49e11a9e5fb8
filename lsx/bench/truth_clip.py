"""A clip whose result is known: every setting of a sweep says what it costs in lips, not only in distance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from lsx.metrics.lips import LipFigures, lip_figures
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.frame_pipeline import clip_chunks
from lsx.runtime.truth_faces import TruthFaces

__all__ = ["TruthChunk", "lips_of", "truth_clip"]


@dataclass(frozen=True, slots=True, eq=False)
class TruthChunk:
    """One chunk of the clip, and what ought to come of it."""

    faces: NDArray[np.uint8]
    """uint8 [F, H, W, 3]."""
    tokens: NDArray[np.float32]
    """float32 [F, S, D]."""
    new: int
    """How many of its last frames no chunk before it had."""
    truth: NDArray[np.uint8]
    """uint8 [F, H, W, 3]."""


def truth_clip(bundle: Bundle, video: Path, audio: Path, truth: Path) -> list[TruthChunk]:
    """Every chunk of a clip that has a face. Raises MediaError, FaceNotFound; UsageError for other frames."""
    model, samples, reader = bundle.model, SoundReader(audio).samples(), VideoReader(video)
    length = max(-(-len(samples) // model.samples_per_frame), model.frames)
    known = TruthFaces(truth, (reader.width, reader.height), length, model.resolution)
    chunks = []
    with opened_detector(bundle) as detector, load_engine(bundle, "audio_encoder") as encoder:
        tokens = AudioTokens(encoder, samples, model)
        for chunk in clip_chunks(reader.ping_pong(length), detector, model, length):
            expected = known.faces(chunk.items)
            if chunk.faces is not None:
                heard = tokens.tokens([item.index for item in chunk.items])
                chunks.append(TruthChunk(chunk.faces, heard, chunk.new, expected))
    if not chunks:
        raise FaceNotFound(f"{video}: no face in it. Take a clip that shows one")
    return chunks


def lips_of(executors: ExecutorCache, bundle: Bundle, options: SamplingOptions, chunks: list[TruthChunk]) -> LipFigures:
    """The lips of the whole clip with these options against the truth."""
    runner = ChunkRunner(executors.lender(options), bundle.model, seeded_noise(options.seed), options.guidance)
    faces, truth = [], []
    for number, chunk in enumerate(chunks):
        pixels = runner.result(runner.submit(chunk.faces, chunk.tokens, number))["pixels"]
        levels = np.clip(np.nan_to_num(pixels.astype(np.float32)).round(), 0, 255).astype(np.uint8)
        faces.append(levels[-chunk.new :])
        truth.append(chunk.truth[-chunk.new :])
    return lip_figures(np.concatenate(faces), np.concatenate(truth))
