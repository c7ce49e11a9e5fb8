"""A frame's way: every stage of a run, named, in order, in one list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lsx.core.model_spec import ModelSpec
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import Stage, run_stages
from lsx.denoising.chunk_runner import ChunkRunner
from lsx.faces.compositing import Compositor
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.chunker import Chunk, Chunker
from lsx.runtime.face_aligner import FaceAligner, SourceFrames
from lsx.runtime.face_choice import Detector, GivenFaces

__all__ = ["FramePipeline", "chunk_stages", "clip_chunks"]


def chunk_stages(aligner: FaceAligner, chunker: Chunker, source: SourceFrames) -> list[Stage]:
    """The stages before the engines: source frames to chunks of aligned faces."""
    return [
        Stage("decode", lambda _: aligner.check(source), capacity=4),
        Stage("detect", aligner.detect, capacity=4),
        Stage("align", aligner.align, capacity=4),
        Stage("chunk", chunker.chunks, capacity=1),
    ]


def clip_chunks(source: SourceFrames, detector: Detector, model: ModelSpec, length: int) -> Iterator[Chunk]:
    """The chunks of a clip of `length` frames by the stages of a run, on the calling thread.

    source : at least a whole chunk. Raises MediaError, FaceNotFound.
    """
    chunker = Chunker(frames=model.frames, length=length)
    return run_stages(chunk_stages(FaceAligner(model.resolution, GivenFaces(detector), length), chunker, source))


@dataclass(slots=True, eq=False)
class FramePipeline:
    """One clip's way from source frames to finished frames."""

    aligner: FaceAligner
    chunker: Chunker
    runner: ChunkRunner
    tokens: AudioTokens
    frames_owned: bool = False
    """Whether frames may be painted on; otherwise they are copied first."""

    def stages(self, source: SourceFrames) -> list[Stage]:
        """Every stage of a run, in order."""
        return [
            *chunk_stages(self.aligner, self.chunker, source),
            Stage("infer", self._infer, capacity=1, stop=self.runner.stop),
            Stage("collect", self._collect, capacity=1),
            Stage("composite", self._composite, capacity=2),
        ]

    def _infer(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.faces is not None:
                tokens = self.tokens.tokens([item.index for item in chunk.items])
                chunk.pending = self.runner.submit(chunk.faces, tokens, chunk.number)
            yield chunk

    def _collect(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.pending is not None:
                chunk.pixels = self.runner.result(chunk.pending)["pixels"]
                chunk.pending = None
            yield chunk

    def _composite(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Frame, Frame]]:
        """(result, original) of each output frame; the same array where nothing changed."""
        compositor = Compositor()
        for chunk in chunks:
            first = len(chunk.items) - chunk.new
            for position, item in enumerate(chunk.items[first:], first):
                if item.index >= self.chunker.length:
                    break
                share = self.chunker.share(item.index)
                if item.affine is None or chunk.pixels is None or share == 0:
                    yield item.frame, item.frame
                    continue
                result = item.frame if self.frames_owned else item.frame.copy()
                compositor.paste(result, chunk.pixels[position], item.affine, share)
                yield result, item.frame
