"""The frame pipeline: decode, detect, align, infer, collect, composite."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lsx.core.tensors import Frame
from lsx.core.threaded_stages import Stage
from lsx.denoising.chunk_runner import ChunkRunner
from lsx.errors import MediaError
from lsx.faces.compositing import Compositor
from lsx.media.video_reader import ping_pong
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.chunking import Call, CallMaker, SourceFrames

__all__ = ["FramePipeline", "indexed"]


_KEPT_BYTES = 2**30  # frames of a one-shot iterable that are kept for playing backwards


def indexed(frames: Iterable[Frame], length: int) -> SourceFrames:
    """`length` frames of `frames` with their source index, ping-pong beyond the end.

    A sequence is read again by index. Of a one-shot iterable the last GiB of frames is kept for playing backwards.
    """
    if isinstance(frames, Sequence):
        if not len(frames):
            raise MediaError("no frames were given")
        for made in range(length):
            source = ping_pong(made, len(frames))
            yield source, frames[source]
        return
    kept: deque[Frame] = deque()
    count, size = 0, 0
    for frame in frames:
        yield count, frame
        count += 1
        if count == length:
            return
        kept.append(frame)
        size += frame.nbytes
        while size > _KEPT_BYTES and len(kept) > 1:
            size -= kept.popleft().nbytes
    if not count:
        raise MediaError("no frames were given")
    for made in range(count, length):
        source = ping_pong(made, count)
        if source < count - len(kept):
            raise MediaError(
                f"the frames ended after {count}, and only the last {len(kept)} are kept for playing backwards. "
                "Give a sequence, or a length that the frames reach"
            )
        yield source, kept[source - (count - len(kept))]


@dataclass(slots=True, eq=False)
class FramePipeline:
    """The stages of one clip."""

    maker: CallMaker
    denoiser: ChunkRunner
    tokens: AudioTokens
    frames_owned: bool = False
    """Whether frames may be painted on; otherwise they are copied first."""

    def stages(self, source: SourceFrames) -> list[Stage]:
        """The chain from source frames to finished frames."""
        made = self.maker
        return [
            Stage("decode", lambda _: made.check(source), capacity=4),
            Stage("detect", made.detect, capacity=4),
            Stage("align", made.align, capacity=4),
            Stage("infer", lambda items: self._infer(made.calls(items)), capacity=1, stop=self.denoiser.stop),
            Stage("collect", self._collect, capacity=1),
            Stage("composite", self._composite, capacity=2),
        ]

    def _infer(self, calls: Iterator[Call]) -> Iterator[Call]:
        for call in calls:
            if call.faces is not None:
                tokens = self.tokens.tokens([item.index for item in call.items])
                call.pending = self.denoiser.submit(call.faces, tokens, call.number)
            yield call

    def _collect(self, calls: Iterator[Call]) -> Iterator[Call]:
        for call in calls:
            if call.pending is not None:
                call.pixels = self.denoiser.result(call.pending)["pixels"]
                call.pending = None
            yield call

    def _composite(self, calls: Iterator[Call]) -> Iterator[tuple[Frame, Frame]]:
        """(result, original) of each output frame; the same array where nothing changed."""
        compositor = Compositor()
        for call in calls:
            first = len(call.items) - call.new
            for position, item in enumerate(call.items[first:], first):
                if item.index >= self.maker.length:
                    break
                if item.affine is None or call.pixels is None:
                    yield item.frame, item.frame
                    continue
                result = item.frame if self.frames_owned else item.frame.copy()
                compositor.paste(result, call.pixels[position], item.affine)
                yield result, item.frame
