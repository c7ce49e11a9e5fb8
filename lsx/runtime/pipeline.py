"""The frame pipeline: decode, detect, align, infer, collect, composite.

Every call of the U-Net covers 16 frames. The last one covers the clip's last 16, and only its new frames are kept; a
clip of fewer is completed by ping-pong, and what was added is dropped at the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.errors import FaceNotFound, LsxError, MediaError
from lsx.runtime.alignment import Affine, Aligner, Face, Frame, crop_face
from lsx.runtime.audio import AudioTokens
from lsx.runtime.compositing import Compositor
from lsx.runtime.denoising import Denoiser
from lsx.runtime.executor import CallResult
from lsx.runtime.stages import Stage, in_order
from lsx.runtime.video import FPS, ping_pong
from lsx.specs import ModelSpec

__all__ = ["Detector", "FramePipeline", "SourceFrames", "indexed"]

Detector = Callable[[Frame], Face | None]

SourceFrames = Iterator[tuple[int, Frame]]
"""Source index and frame of output frame 0, 1, 2, ..."""

_Seen = tuple[int, int, Frame, Face | None]
"""Output index, source index, frame, and its face where the frame is new."""

_KEPT_BYTES = 2**30  # frames of a one-shot iterable that are kept for playing backwards


@dataclass(slots=True, eq=False)
class _Item:
    """One output frame on its way. `affine` and `crop` are None where the frame has no face."""

    index: int
    frame: Frame
    affine: Affine | None
    crop: NDArray[np.uint8] | None


@dataclass(slots=True, eq=False)
class _Call:
    """One call of the U-Net: `F` frames, of which the last `new` are kept."""

    number: int
    items: list[_Item]
    new: int
    faces: NDArray[np.uint8] | None
    """uint8 [F, H, W, 3]; None where no frame of the call has a face."""
    result: CallResult | None = None


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
    """The stages of one clip. `faceless` holds the indices of frames that passed through, when it has run."""

    model: ModelSpec
    denoiser: Denoiser
    tokens: AudioTokens
    detector: Detector
    length: int
    """Output frames."""
    frames_owned: bool
    """Whether frames may be painted on; otherwise they are copied first."""
    require_face: bool
    """Whether a frame without a face is an error."""
    detector_threads: int = 1
    """Threads on which the detector is called; on more than one it must be thread-safe."""
    faceless: list[int] = field(default_factory=list)

    @property
    def source_length(self) -> int:
        """Frames to read: at least one whole call."""
        return max(self.length, self.model.frames)

    def stages(self, source: SourceFrames) -> list[Stage]:
        """The chain from source frames to finished frames."""
        return [
            Stage("decode", lambda _: self._check(source), capacity=4),
            Stage("detect", self._detect, capacity=4),
            Stage("align", self._align, capacity=4),
            Stage("infer", lambda items: self._infer(self._calls(items)), capacity=1, stop=self.denoiser.stop),
            Stage("collect", self._collect, capacity=1),
            Stage("composite", self._composite, capacity=2),
        ]

    def _check(self, source: SourceFrames) -> Iterator[tuple[int, int, Frame]]:
        shape: tuple[int, ...] | None = None
        for index, (number, frame) in enumerate(source):
            wrong = not isinstance(frame, np.ndarray) or frame.dtype != np.uint8
            if wrong or frame.ndim != 3 or frame.shape[2] != 3 or (shape is not None and frame.shape != shape):
                given = f"{frame.dtype}{list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
                raise MediaError(
                    f"frame {index} is {given}; every frame must be uint8 [height, width, 3] RGB of one size"
                )
            shape = frame.shape
            yield index, number, frame

    def _detect(self, items: Iterator[tuple[int, int, Frame]]) -> Iterator[_Seen]:
        """Each source frame is looked at once, when it first comes."""
        known = 0

        def first_time(item: tuple[int, int, Frame]) -> tuple[int, int, Frame, bool]:
            nonlocal known
            new = item[1] == known
            known += new
            return (*item, new)

        def look(item: tuple[int, int, Frame, bool]) -> _Seen:
            index, source, frame, new = item
            return index, source, frame, self.detector(frame) if new else None

        return in_order(look, map(first_time, items), self.detector_threads)

    def _align(self, items: Iterator[_Seen]) -> Iterator[_Item]:
        aligner = Aligner(self.model.resolution)
        # Affines of all source frames, for when they come again: 48 bytes each, NaN where there is no face.
        known = _Affines()
        found = False
        for index, source, frame, face in items:
            if source == len(known):
                known.append(None if face is None else aligner.affine(face.points))
            affine = known[source]
            found = found or affine is not None
            if affine is None and self.require_face:
                raise FaceNotFound(
                    f"no face in the frame at {source / FPS:.2f} s (frame {source}). "
                    "Cut it out, or let such frames pass through: --no-face pass"
                )
            crop = None if affine is None else crop_face(frame, affine, self.model.resolution)
            if affine is None and index < self.length:
                self.faceless.append(index)
            yield _Item(index, frame, affine, crop)
        if not found:
            raise FaceNotFound(
                "no face was found in any frame. Check that the picture is upright and the face at least 40 pixels high"
            )

    def _calls(self, items: Iterator[_Item]) -> Iterator[_Call]:
        frames = self.model.frames
        window: deque[_Item] = deque(maxlen=frames)
        number, done = 0, 0
        for item in items:
            window.append(item)
            count = item.index + 1
            if count - done == frames or count == self.source_length:
                yield _Call(number, list(window), count - done, _faces_of(list(window)))
                number, done = number + 1, count

    def _infer(self, calls: Iterator[_Call]) -> Iterator[_Call]:
        for call in calls:
            if call.faces is not None:
                tokens = self.tokens.tokens([item.index for item in call.items])
                self.denoiser.submit(call.faces, tokens, call.number)
            yield call

    def _collect(self, calls: Iterator[_Call]) -> Iterator[_Call]:
        for call in calls:
            if call.faces is not None:
                call.result = self.denoiser.result()
            yield call

    def _composite(self, calls: Iterator[_Call]) -> Iterator[tuple[Frame, Frame]]:
        """(result, original) of each output frame; the same array where nothing changed."""
        compositor = Compositor()
        for call in calls:
            pixels = None if call.result is None else call.result.arrays["pixels"]
            first = len(call.items) - call.new
            for position, item in enumerate(call.items[first:], first):
                if item.index >= self.length:
                    break
                if item.affine is None or pixels is None:
                    yield item.frame, item.frame
                    continue
                result = item.frame if self.frames_owned else item.frame.copy()
                compositor.paste(result, pixels[position], item.affine)
                yield result, item.frame
            if call.result is not None:
                call.result.release()


class _Affines:
    """Affines by source index, packed."""

    def __init__(self) -> None:
        self._rows = np.full((256, 6), np.nan)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, affine: Affine | None) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, np.nan)])
        if affine is not None:
            self._rows[self._count] = affine.reshape(6)
        self._count += 1

    def __getitem__(self, index: int) -> Affine | None:
        if not 0 <= index < self._count:
            raise LsxError(f"source frame {index} came before the {self._count} frames that lead to it")
        row = self._rows[index]
        return None if np.isnan(row[0]) else row.reshape(2, 3).copy()


def _faces_of(items: list[_Item]) -> NDArray[np.uint8] | None:
    """The crops of a call. A frame without a face borrows the nearest one's: the call's statistics stay a face's."""
    present = [i for i, item in enumerate(items) if item.crop is not None]
    if not present:
        return None
    nearest: list[Any] = [items[min((abs(p - i), p) for p in present)[1]].crop for i in range(len(items))]
    return np.stack(nearest)
