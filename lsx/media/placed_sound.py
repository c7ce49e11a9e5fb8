"""A sound moved in time, and cut or filled with silence to an exact length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lsx.errors import MediaError
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader
from lsx.media.given import VideoSource

__all__ = ["PlacedSound", "cut_anew", "own_sound", "placed_samples"]

_BLOCK = 8192  # samples of silence at a time


def placed_samples(
    samples: NDArray[np.int16] | NDArray[np.float32], offset: Fraction, seconds: Fraction | None
) -> NDArray[np.int16] | NDArray[np.float32]:
    """`samples` at 16 kHz, `offset` seconds later, lasting `seconds`, or as long as they do: the same dtype, [n]."""
    lead, skip = _moved(offset, SAMPLE_RATE)
    kept = samples[skip:]
    total = lead + len(kept) if seconds is None else round(seconds * SAMPLE_RATE)
    placed = np.zeros(total, samples.dtype)
    placed[lead : lead + len(kept)] = kept[: max(total - lead, 0)]
    return placed


def _moved(offset: Fraction, rate: int) -> tuple[int, int]:
    """Samples of silence before, and samples left out at the beginning."""
    return (round(offset * rate), 0) if offset >= 0 else (0, round(-offset * rate))


def cut_anew(pieces: Iterable[Any], size: int) -> Iterator[Any]:
    """Audio frames of `size` samples, the last of them shorter, from frames of any."""
    fifo = av.AudioFifo()
    for piece in pieces:
        fifo.write(piece)
        while (frame := fifo.read(size)) is not None:
            yield frame
    if (rest := fifo.read(size, partial=True)) is not None:
        yield rest


class PlacedSound(SoundReader):
    """Another sound, `offset` seconds later (its beginning left out where negative), lasting exactly `seconds`.

    Exact to a sample at every rate. Its packets are the other's, so it can only be encoded anew. seconds : None where
    it ends as it does.
    """

    def __init__(self, sound: SoundReader, offset: Fraction, seconds: Fraction | None) -> None:
        self._inner, self._offset, self._seconds = sound, offset, seconds
        self.path, self.kept = sound.path, sound
        self.codec, self.rate, self.layout = sound.codec, sound.rate, sound.layout

    def samples(self) -> NDArray[np.int16] | NDArray[np.float32]:
        """What the model hears: mono at 16 kHz, in the dtype of the sound's own."""
        return placed_samples(self._inner.samples(), self._offset, self._seconds)

    def frames(self, sample_format: str, rate: int, size: int, layout: str | None = None) -> Iterator[Any]:
        """The sound as frames, as SoundReader gives them; the last may be shorter."""
        return cut_anew(self._pieces(sample_format, rate, layout or self.layout), size)

    def _pieces(self, sample_format: str, rate: int, layout: str) -> Iterator[Any]:
        lead, skip = _moved(self._offset, rate)
        left = None if self._seconds is None else round(self._seconds * rate)
        for piece in self._unended(sample_format, rate, layout, (lead, skip)):
            if left is not None and left <= piece.samples:
                yield _part(piece, 0, left)
                return
            yield piece
            left = None if left is None else left - piece.samples
        yield from _silence(sample_format, layout, rate, left or 0)

    def _unended(self, sample_format: str, rate: int, layout: str, moved: tuple[int, int]) -> Iterator[Any]:
        """Silence, and the sound without its beginning."""
        lead, skip = moved
        yield from _silence(sample_format, layout, rate, lead)
        for frame in self._inner.frames(sample_format, rate, _BLOCK, layout):
            frame.pts = None
            if skip < frame.samples:
                yield _part(frame, skip, frame.samples)
            skip = max(skip - frame.samples, 0)


def own_sound(video: VideoSource, since: Fraction) -> PlacedSound | None:
    """The sound in a video's own file, from its second `since` on; None where it has none."""
    path = getattr(video, "path", None)
    if path is None:
        return None
    try:
        own = SoundReader(path)
    except MediaError:
        return None
    lead = Fraction(round((own.start() - float(getattr(video, "start", 0))) * own.rate), own.rate)
    return PlacedSound(own, lead - since, None)


def _part(frame: Any, start: int, stop: int) -> Any:
    """Samples start..stop of an audio frame."""
    if (start, stop) == (0, frame.samples):
        return frame
    array = frame.to_ndarray()
    wide = 1 if frame.format.is_planar else len(frame.layout.channels)
    cut = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(array[:, start * wide : stop * wide]), format=frame.format.name, layout=frame.layout.name
    )
    cut.sample_rate = frame.sample_rate
    return cut


def _silence(sample_format: str, layout: str, rate: int, samples: int) -> Iterator[Any]:
    """`samples` of nothing, in blocks."""
    kind = av.AudioFormat(sample_format)
    channels = len(av.AudioLayout(layout).channels)
    dtype = {"s16": np.int16, "flt": np.float32, "fltp": np.float32}[kind.name]
    for start in range(0, samples, _BLOCK):
        count = min(_BLOCK, samples - start)
        shape = (channels, count) if kind.is_planar else (1, channels * count)
        frame = av.AudioFrame.from_ndarray(np.zeros(shape, dtype), format=sample_format, layout=layout)
        frame.sample_rate = rate
        yield frame
