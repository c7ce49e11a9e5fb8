"""A frame's way: every stage of a run, named, in order, in one list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import Stage, run_stages
from lsx.denoising.chunk_runner import ChunkRunner
from lsx.faces.compositing import Compositor, PasteMask
from lsx.faces.retouch import Retouch
from lsx.runtime.chunk_plan import Border
from lsx.runtime.chunker import Chunk, Chunker
from lsx.runtime.face_aligner import FaceAligner, FoundFaces, SourceFrames
from lsx.runtime.face_choice import Detector, GivenFaces
from lsx.runtime.frame_paster import FramePaster
from lsx.runtime.last_chunks import LastChunks
from lsx.runtime.run_state import MadeChunk, RunState
from lsx.runtime.seams import SeamMeter

__all__ = ["CHUNKS_HELD", "FramePipeline", "Voice", "chunk_stages", "clip_chunks", "face_stages", "held_frames"]

CHUNKS_HELD = 7
"""Chunks that a run's stages hold at most: one in each of chunk, infer, collect and composite, one between each."""


class Voice(Protocol):
    """A sound, as the U-Net hears it."""

    def tokens(self, frames: Sequence[int]) -> NDArray[np.float32]:
        """Audio tokens of output frames: float32 [len(frames), S, D]."""


def face_stages(aligner: FaceAligner, source: SourceFrames) -> list[Stage]:
    """The first stages: source frames to aligned faces."""
    return [
        Stage("decode", lambda _: aligner.check(source), capacity=4),
        Stage("detect", aligner.detect, capacity=4),
        Stage("align", aligner.align, capacity=4),
    ]


def chunk_stages(aligner: FaceAligner, chunker: Chunker, source: SourceFrames) -> list[Stage]:
    """The stages before the engines: source frames to chunks of aligned faces."""
    return [*face_stages(aligner, source), Stage("chunk", partial(chunker.chunks, border=aligner.border), capacity=1)]


def held_frames(chunker: Chunker, threads: int) -> int:
    """Frames that a run's stages hold at most, as they come and as they go. threads : that look for faces."""
    before, looked_at, after = 3 * 5, 2 * threads, 2 * 3
    return before + looked_at + (CHUNKS_HELD + 1) * chunker.frames * chunker.stride + chunker.overlap + after


def clip_chunks(source: SourceFrames, detector: Detector, model: ModelSpec, length: int) -> Iterator[Chunk]:
    """The chunks of a clip of `length` frames by the stages of a run, on the calling thread.

    source : at least a whole chunk. Raises MediaError, FaceNotFound.
    """
    chunker = Chunker(frames=model.frames, length=length)
    return run_stages(
        chunk_stages(FaceAligner(FoundFaces(GivenFaces(detector), model.resolution), length), chunker, source)
    )


@dataclass(slots=True, eq=False)
class FramePipeline:
    """One clip's way from source frames to finished frames."""

    aligner: FaceAligner
    chunker: Chunker
    runner: ChunkRunner
    voices: Sequence[Voice]
    """What each voice of the chunker's says."""
    frames_owned: bool = False
    """Whether frames may be painted on; otherwise they are copied first."""
    retouch: Retouch = field(default_factory=Retouch)
    mask: PasteMask = "soft"
    seams: SeamMeter = field(default_factory=SeamMeter)
    start: RunState = field(default_factory=RunState)
    """What there is where the run goes on, at the aligner's border."""
    borders: Mapping[int, Border] = field(default_factory=dict)
    """Borders at which it may be left, by the first frame after each."""
    states: dict[int, RunState] = field(default_factory=dict, init=False)
    """What there was at each of these, once the frame before it has come out."""
    collected: int = field(default=0, init=False)
    """Chunks of the plan that came from the engines, whole, or past them because nothing was to be made."""
    computed: int = field(default=0, init=False)
    """Chunks that came from the engines."""

    @property
    def border(self) -> Border:
        """The place at which the run goes on; its beginning where nothing was made before."""
        return self.aligner.border

    @property
    def blended(self) -> Literal["latents", "pixels"] | None:
        """What the frames are blended in that chunks have in common; None where they have none."""
        if not self.chunker.overlap:
            return None
        return "latents" if self.runner.keeps else "pixels"

    def stages(self, source: SourceFrames) -> list[Stage]:
        """Every stage of a run, in order."""
        return [
            *chunk_stages(self.aligner, self.chunker, source),
            Stage("infer", self._infer, capacity=1, stop=self.runner.stop),
            Stage("collect", self._collect, capacity=1),
            Stage("composite", self._composite, capacity=2),
        ]

    def _infer(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        made = LastChunks()
        for earlier in self.start.chunks:
            made.add_earlier(earlier, self.runner.earlier(earlier.steps))
        for chunk in chunks:
            if chunk.faces is not None:
                tokens = self.voices[chunk.part.voice].tokens([item.index for item in chunk.items])
                after = made.before(chunk) if self.runner.keeps else None
                chunk.pending = self.runner.submit(chunk.faces, tokens, chunk.number, chunk.moments, after)
                if self.runner.keeps:
                    made.add(chunk, chunk.pending)
            yield chunk

    def _collect(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.pending is not None:
                chunk.pixels = self.runner.result(chunk.pending)["pixels"]
                self.computed += chunk.last
            self.collected += chunk.last
            yield chunk

    def _composite(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Frame, Frame]]:
        """(result, original) of each output frame; the same array where nothing changed."""
        self.seams.across, self.seams.inside = list(self.start.across), list(self.start.inside)
        paster = FramePaster(self.seams, self.retouch, Compositor(self.mask), self.start.made)
        trail = _Trail(self.start)
        for chunk in chunks:
            paster.add(chunk)
            trail.add(chunk, self.runner)
            for item in chunk.done:
                finished = paster.finish(item, owned=self.frames_owned)
                if (border := self.borders.get(item.index + 1)) is not None:
                    self.states[border.frame] = self._state(border, paster, trail)
                yield finished

    def _state(self, border: Border, paster: FramePaster, trail: _Trail) -> RunState:
        return RunState(
            faceless=[index for index in self.aligner.faceless if index < border.frame],
            any_face=self.aligner.any_face,
            computed=trail.computed,
            repeated=self.start.repeated + self.runner.repeated,
            across=list(self.seams.across),
            inside=list(self.seams.inside),
            made={index: dict(layers) for index, layers in paster.made.items()},
            chunks=trail.reaching(border.read),
        )


class _Trail:
    """The chunks that came last, for what goes on from them, and how many were computed."""

    def __init__(self, start: RunState) -> None:
        self.computed = start.computed
        self._chunks: list[MadeChunk] = list(start.chunks)

    def add(self, chunk: Chunk, runner: ChunkRunner) -> None:
        if chunk.pending is None:
            return
        self.computed += 1
        made = chunk.pending.arrays if runner.keeps else None
        if made is not None and "steps_out" in made:
            frames = tuple(item.index for item in chunk.items)
            self._chunks = [one for one in self._chunks if one.frames[-1] >= frames[0]]
            self._chunks.append(MadeChunk(chunk.slot, chunk.part.voice, frames, made["steps_out"]))
        chunk.pending = None

    def reaching(self, frame: int) -> list[MadeChunk]:
        """Those that have `frame`, or one after it."""
        return [made for made in self._chunks if made.frames[-1] >= frame]
