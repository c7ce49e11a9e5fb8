"""Sounds laid over a video's own, each from one second to another, with short fades: exact to a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lsx.core.footage import Mix
from lsx.errors import UsageError
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader
from lsx.media.placed_sound import cut_anew

__all__ = ["LaidSound", "MixedSound"]

FADE = Fraction(1, 100)
"""Seconds in which a sound comes in, and goes out."""
_LEFT: dict[Mix, float] = {"replace": 0.0, "over": 1.0, "duck": 0.25}  # of the sound beneath; 0.25 is 12 dB less
_BLOCK = 8192
_UNKNOWN_RATE = 48000  # of a result in which nothing sounds


@dataclass(frozen=True, slots=True)
class LaidSound:
    """A sound from `start` to `stop`, in seconds of the result."""

    sound: SoundReader
    """Begins at `start`; what lasts longer than to `stop` is left out."""
    start: Fraction
    stop: Fraction
    volume: float = 1.0


class MixedSound(SoundReader):
    """The sound beneath, or silence, with others laid over it.

    It lasts exactly `seconds`. Where nothing is laid, the samples are those of the sound beneath. Its rate and channels
    are that one's, or else the first other's. It can only be encoded anew.
    """

    def __init__(self, beneath: SoundReader | None, laid: Sequence[LaidSound], seconds: Fraction, mix: Mix) -> None:
        sounds = [sound for sound in (beneath, *(each.sound for each in laid)) if sound is not None]
        self._beneath, self._laid, self._seconds, self._mix = beneath, laid, seconds, mix
        self.kept = sounds
        self.rate = sounds[0].rate if sounds else _UNKNOWN_RATE
        self.layout = sounds[0].layout if sounds else "mono"
        self.codec = "none"
        if sounds:
            self.path = sounds[0].path

    def samples(self) -> NDArray[np.int16] | NDArray[np.float32]:
        """The mixture as float32 mono at 16 kHz."""
        pieces = [block.mean(axis=0) for block in self._blocks(SAMPLE_RATE, "mono")]
        return np.concatenate(pieces).astype(np.float32)

    def packets(self) -> Iterator[tuple[Any, Fraction]]:
        """Raises UsageError: a mixture has none."""
        raise UsageError("a mixed sound has no packets to copy; choose audio_codec aac or pcm")

    def frames(self, sample_format: str, rate: int, size: int, layout: str | None = None) -> Iterator[Any]:
        """The sound as frames, as SoundReader gives them; the last may be shorter."""
        return cut_anew(self._converted(sample_format, rate, layout or self.layout), size)

    def _converted(self, sample_format: str, rate: int, layout: str) -> Iterator[Any]:
        """The mixture in FFmpeg's `sample_format`."""
        resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate)
        for block in self._blocks(rate, layout):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
            frame.sample_rate = rate
            for converted in resampler.resample(frame):
                converted.pts = None
                yield converted

    def _blocks(self, rate: int, layout: str) -> Iterator[NDArray[np.float32]]:
        """The mixture, float32 [channels, n] in -1..1, a block at a time."""
        beneath = _Samples(self._beneath, rate, layout)
        laid = [_Laid(each, rate, layout) for each in self._laid]
        total = round(self._seconds * rate)
        for start in range(0, total, _BLOCK):
            stop = min(start + _BLOCK, total)
            block = beneath.take(stop - start)
            over = np.zeros_like(block)
            for each in laid:
                share, samples = each.between(start, stop)
                if share is not None:
                    block *= 1 - share * (1 - _LEFT[self._mix])
                    over += share * samples
            yield np.clip(block + over, -1, 1)


class _Samples:
    """A sound's samples one after another, silence where it has ended, or from the beginning where there is none.

    One channel becomes two like it. FFmpeg would make each 3 dB softer.
    """

    def __init__(self, sound: SoundReader | None, rate: int, layout: str) -> None:
        self._channels = 1 if layout == "mono" else 2
        read_as = "mono" if sound is not None and sound.layout == "mono" else layout
        self._pieces = iter(()) if sound is None else sound.frames("fltp", rate, _BLOCK, read_as)
        self._rest: NDArray[np.float32] = np.zeros((self._channels, 0), np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        """The next `count`: float32 [channels, count]."""
        taken = np.zeros((self._channels, count), np.float32)
        filled = 0
        while filled < count:
            if not self._rest.shape[1]:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                samples = np.asarray(piece.to_ndarray(), np.float32)
                self._rest = np.broadcast_to(samples, (self._channels, samples.shape[1]))
            part = self._rest[:, : count - filled]
            taken[:, filled : filled + part.shape[1]] = part
            self._rest = self._rest[:, part.shape[1] :]
            filled += part.shape[1]
        return taken


class _Laid:
    """A laid sound at one rate."""

    def __init__(self, laid: LaidSound, rate: int, layout: str) -> None:
        self._start, self._stop = round(laid.start * rate), round(laid.stop * rate)
        self._volume = np.float32(laid.volume)
        self._fade = min(round(FADE * rate), (self._stop - self._start) // 2)
        self._sound, self._rate, self._layout = laid.sound, rate, layout
        self._samples: _Samples | None = None

    def between(self, start: int, stop: int) -> tuple[Any, Any]:
        """How far it is heard in each of these samples, [n], and its samples there [channels, n]; or None, None."""
        if stop <= self._start or start >= self._stop:
            self._samples = None if start >= self._stop else self._samples
            return None, None
        if self._samples is None:
            self._samples = _Samples(self._sound, self._rate, self._layout)
        here = slice(max(self._start - start, 0), min(self._stop, stop) - start)
        places = np.arange(start + here.start, start + here.stop, dtype=np.float64)
        # in the middle of each sample, so that both ends are alike
        ends = np.minimum(places + 0.5 - self._start, self._stop - places - 0.5)
        share = np.zeros(stop - start, np.float32)
        share[here] = np.clip(ends / max(self._fade, 1), 0, 1)
        taken = self._samples.take(here.stop - here.start)
        samples = np.zeros((len(taken), stop - start), np.float32)
        samples[:, here] = self._volume * taken
        return share, samples
