"""Speech as it comes: utterances, and the sound of each chunk as soon as it is complete."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import described
from lsx.core.threaded_stages import Stopped
from lsx.errors import UsageError

__all__ = ["CONTEXT_FRAMES", "LiveSpeech", "Rhythm", "SpokenChunk", "Utterance", "live_samples"]

CONTEXT_FRAMES = 750
"""Frames of sound that the audio encoder hears of an utterance at a chunk's end: its 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """The places of an utterance's chunks, in frames from its beginning: one after another, each `hop` later."""

    frames: int
    """Frames of a chunk, F."""
    overlap: int
    """Frames that a chunk has in common with the one before, which showed them."""
    ahead: int
    """Frames of sound after a frame that its tokens hear."""
    samples: int
    """Samples of the sound, a frame."""

    @property
    def hop(self) -> int:
        """Frames that are new in every chunk but the first."""
        return self.frames - self.overlap

    def chunk(self, number: int) -> range:
        """The frames of chunk `number`."""
        return range(self.hop * number, self.hop * number + self.frames)

    def fresh(self, number: int) -> range:
        """The frames of them that no chunk before it showed."""
        return self.chunk(number)[self.overlap if number else 0 :]

    def needed(self, number: int) -> int:
        """Samples from the utterance's beginning until the chunk's sound is complete."""
        return (self.chunk(number).stop + self.ahead) * self.samples

    def count(self, samples: int) -> int:
        """Chunks of an utterance of so many samples in all."""
        frames = -(-samples // self.samples)
        return 0 if not frames else 1 + max(-(-(frames - self.frames) // self.hop), 0)


@dataclass(slots=True, eq=False)
class Utterance:
    """What is said from one silence to the next. Of what was spoken the last 30 s are kept."""

    number: int
    cleared: bool = False
    """Whether nobody wants to hear the rest of it."""
    ended: bool = False
    """Whether its sound is whole."""
    total: int = 0
    """Samples that have come."""
    taken: int = 0
    """Its chunks that were taken."""
    complete: deque[float] = field(default_factory=deque)
    """The time at which the sound of each chunk was complete that is not taken yet, of `time.perf_counter`."""
    _sound: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    _first: int = 0
    """The sample with which `_sound` begins."""

    def add(self, samples: NDArray[np.int16], rhythm: Rhythm) -> None:
        """More of its sound."""
        self._sound = np.concatenate([self._sound, samples])
        self.total += len(samples)
        self._note(rhythm)

    def end(self, rhythm: Rhythm) -> None:
        """No more of it comes."""
        self.ended = True
        self._note(rhythm)

    def _note(self, rhythm: Rhythm) -> None:
        now = time.perf_counter()
        while self._is_there(rhythm, self.taken + len(self.complete)):
            self.complete.append(now)

    def _is_there(self, rhythm: Rhythm, number: int) -> bool:
        return number < rhythm.count(self.total) if self.ended else rhythm.needed(number) <= self.total

    def is_over(self, rhythm: Rhythm) -> bool:
        """Whether all of its chunks were taken."""
        return self.cleared or (self.ended and self.taken >= rhythm.count(self.total))

    def take(self, rhythm: Rhythm) -> SpokenChunk:
        """The next chunk, which is complete. Of a sound that has ended the rest is silence."""
        number, complete = self.taken, self.complete.popleft()
        self.taken += 1
        stop = rhythm.needed(number)
        begin = max(rhythm.chunk(number).stop + rhythm.ahead - CONTEXT_FRAMES, 0)
        fresh = rhythm.fresh(number)
        chunk = SpokenChunk(
            utterance=self,
            number=number,
            frames=rhythm.chunk(number),
            fresh=fresh,
            begin=begin,
            heard=self._between(begin * rhythm.samples, stop),
            sound=self._between(fresh.start * rhythm.samples, fresh.stop * rhythm.samples),
            complete=complete,
            last=self.is_over(rhythm),
        )
        kept = max(begin * rhythm.samples - self._first, 0)
        self._sound, self._first = self._sound[kept:], self._first + kept
        return chunk

    def _between(self, start: int, stop: int) -> NDArray[np.int16]:
        part = self._sound[start - self._first : stop - self._first]
        return np.pad(part, (0, stop - start - len(part)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpokenChunk:
    """The sound of one chunk of an utterance, complete."""

    utterance: Utterance
    number: int
    frames: range
    """Its frames, counted from the utterance's beginning."""
    fresh: range
    """The ones of them that it shows."""
    begin: int
    """The frame with which `heard` begins."""
    heard: NDArray[np.int16]
    """What the audio encoder hears: to a little after its last frame, no further back than 30 s."""
    sound: NDArray[np.int16]
    """The sound of the frames that it shows."""
    complete: float
    """The second at which its sound was complete."""
    last: bool
    """Whether it is its utterance's last. It is known: before its end an utterance has more than its chunks show."""


def live_samples(samples: Any) -> NDArray[np.int16]:
    """A piece of sound of any length, int16 or float32 (-1..1) [samples], as int16. Raises UsageError."""
    try:
        piece = np.asarray(samples)
    except (TypeError, ValueError):
        piece = np.zeros(())
    if piece.ndim != 1 or piece.dtype not in (np.int16, np.float32):
        raise UsageError(
            f"the sound is {described(samples)}; give int16 or float32 of one axis, mono at 16 kHz, any number"
        )
    if piece.dtype == np.int16:
        return np.array(piece)
    if not np.isfinite(piece).all():
        raise UsageError("the sound has samples that are not finite (NaN or infinity)")
    return np.clip(np.round(piece * 32768), -32768, 32767).astype(np.int16)


class LiveSpeech:
    """Utterances that are still to be spoken. What a chunk hears depends on the sound alone, not on its pieces.

    Used from any thread; chunks are taken by one.
    """

    def __init__(self, rhythm: Rhythm) -> None:
        self.rhythm = rhythm
        self._changed = threading.Condition()
        self._waiting: deque[Utterance] = deque()
        self._unshown: list[Utterance] = []
        self._count = 0
        self._closed = False

    @property
    def pending(self) -> float:
        """Seconds of sound that have come and are in no chunk yet."""
        with self._changed:
            samples = sum(self._left(one) for one in self._waiting)
        return samples / (25 * self.rhythm.samples)

    def _left(self, utterance: Utterance) -> int:
        taken = self.rhythm.fresh(utterance.taken - 1).stop * self.rhythm.samples if utterance.taken else 0
        return max(utterance.total - taken, 0)

    @property
    def is_speaking(self) -> bool:
        """Whether there is an utterance that has ended and is not shown to its last frame."""
        with self._changed:
            return any(one.ended and one.total for one in self._unshown)

    def forget(self, utterance: Utterance) -> None:
        """An utterance was shown to its last frame."""
        with self._changed:
            self._unshown = [one for one in self._unshown if one is not utterance]

    def say(self, samples: Any) -> None:
        """More of the utterance under way, or the beginning of one. Raises UsageError for what are no samples."""
        piece = live_samples(samples)
        with self._changed:
            if not self._waiting or self._waiting[-1].ended:
                self._waiting.append(Utterance(self._count))
                self._unshown.append(self._waiting[-1])
                self._count += 1
            self._waiting[-1].add(piece, self.rhythm)
            self._changed.notify_all()

    def end(self) -> None:
        """The utterance under way is whole: what is missing to its last chunk is silence."""
        with self._changed:
            if self._waiting and not self._waiting[-1].ended:
                self._waiting[-1].end(self.rhythm)
                self._changed.notify_all()

    def clear(self) -> None:
        """Forget everything that is not in a chunk yet; the next samples begin an utterance."""
        with self._changed:
            gone, self._waiting = self._waiting, deque()
            self._unshown.clear()
            for utterance in gone:
                utterance.cleared = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let whoever waits for a chunk get Stopped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> SpokenChunk:
        """The next chunk, waited for. Raises Stopped after `close`."""
        with self._changed:
            while True:
                if self._closed:
                    raise Stopped
                while self._waiting and self._waiting[0].is_over(self.rhythm):
                    self._waiting.popleft()
                if self._waiting and self._waiting[0].complete:
                    return self._waiting[0].take(self.rhythm)
                self._changed.wait()
