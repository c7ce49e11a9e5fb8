"""One utterance on its way through the engines: its noise, its pasting, and the chunks that it goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.core.tensors import Frame
from lsx.denoising.chunk_runner import ChunkRunner
from lsx.engines.engine import Engine
from lsx.faces.compositing import Compositor
from lsx.faces.retouch import Retouch
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.chunk_plan import Part
from lsx.runtime.chunker import Chunk, faces_of_slot
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.frame_paster import FramePaster
from lsx.runtime.last_chunks import LastChunks
from lsx.runtime.live.speech import SpokenChunk, Utterance
from lsx.runtime.seams import SeamMeter

__all__ = ["Group", "Voice", "mixed"]


@dataclass(slots=True, eq=False)
class Group:
    """The chunks of one place in an utterance: one for each face, or none where no frame has a face."""

    voice: Voice
    spoken: SpokenChunk
    items: list[AlignedFrame]
    """The frames of the place, F."""
    chunks: list[Chunk]
    computing: float = 0.0
    """Seconds of tokens and engines."""
    waited: float = 0.0
    """Seconds until other runs' chunks let it begin."""


@dataclass(slots=True, eq=False, kw_only=True)
class Voice:
    """One utterance's."""

    utterance: Utterance
    start: int
    """The avatar's position with which it begins."""
    prompt: bool
    """Whether nothing was being said when it began."""
    runner: ChunkRunner
    encoder: Engine
    model: ModelSpec
    retouch: Retouch
    _made: LastChunks = field(default_factory=LastChunks)
    _paster: FramePaster = field(init=False)

    def __post_init__(self) -> None:
        self._paster = FramePaster(SeamMeter(), self.retouch, Compositor())

    def group(self, spoken: SpokenChunk, item: Callable[[int], AlignedFrame]) -> Group:
        """The chunks that say it. item : the avatar's frame at a position."""
        items = [item(self.start + frame) for frame in spoken.frames]
        weights = np.zeros(len(items), np.float32)
        weights[-len(spoken.fresh) :] = 1
        part = Part(self.start, self.start + spoken.frames.stop)
        chunks = []
        for slot in sorted({slot for one in items for slot in one.faces}):
            faces = faces_of_slot(items, slot)
            crops, moments = np.stack([face.crop for face in faces]), [face.moments for face in faces]
            kept = np.stack([one for one in moments if one is not None])
            chunks.append(Chunk(spoken.number, part, slot, items, weights, crops, kept, []))
        return Group(self, spoken, items, chunks)

    def submit(self, group: Group) -> None:
        """Start its chunks. Raises EngineError; Stopped where the utterance was given up."""
        if not group.chunks:
            return
        started, waited = time.perf_counter(), self.runner.waited
        spoken = group.spoken
        heard = AudioTokens(self.encoder, spoken.heard, self.model)
        tokens = heard.tokens([frame - spoken.begin for frame in spoken.frames])
        group.computing = time.perf_counter() - started
        for chunk in group.chunks:
            after = self._made.before(chunk) if self.runner.keeps else None
            assert chunk.faces is not None  # noqa: S101
            chunk.pending = self.runner.submit(chunk.faces, tokens, chunk.number, chunk.moments, after)
            if self.runner.keeps:
                self._made.add(chunk, chunk.pending)
        group.waited = self.runner.waited - waited

    def collect(self, group: Group) -> None:
        """Wait for what its chunks make. Raises EngineError; Stopped where the utterance was given up."""
        before = sum(self.runner.seconds.values())
        for chunk in group.chunks:
            assert chunk.pending is not None  # noqa: S101
            chunk.pixels = self.runner.result(chunk.pending)["pixels"]
        group.computing += sum(self.runner.seconds.values()) - before

    def add(self, group: Group) -> None:
        """Take what its chunks made, to be pasted."""
        for chunk in group.chunks:
            self._paster.add(chunk)

    def finish(self, item: AlignedFrame) -> tuple[Frame, Frame]:
        """(result, original) of the next frame that it shows."""
        return self._paster.finish(item, owned=False)

    def clear(self) -> None:
        """Give up what is not shown."""
        self.utterance.cleared = True
        self.runner.stop()


def mixed(made: Frame, own: Frame, share: float) -> Frame:
    """`share` of what was made in the avatar's own frame, uint8 [H, W, 3]."""
    if share >= 1 or made is own:
        return made
    mixture: NDArray[Any] = share * made.astype(np.float32) + np.float32(1 - share) * own
    return np.asarray(np.round(mixture), np.uint8)
