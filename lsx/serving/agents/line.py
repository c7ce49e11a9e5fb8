"""What adapters speak to: a talker of this process, or a live session of a server, by the same few calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import FPS
from lsx.core.tensors import Frame
from lsx.runtime.live.pacing import paced
from lsx.runtime.live.talker import LiveTalker
from lsx.serving.client.live import LiveConnection

__all__ = ["Line", "ServerLine", "Shot", "Speech", "TalkerLine"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """One frame, 1/25 s."""

    image: Frame
    """uint8 [H, W, 3] RGB."""
    speaking: bool
    last: bool
    """Whether it is its utterance's last."""


class Line(Protocol):
    """An avatar that speaks, on a clock of 25 frames a second."""

    width: int
    height: int

    async def say(self, samples: NDArray[np.int16]) -> None:
        """Say more: int16 [samples], mono at 16 kHz."""

    async def end(self) -> None:
        """The utterance is whole."""

    async def clear(self) -> None:
        """Stop speaking, and forget the rest."""

    def shots(self) -> AsyncIterator[Shot]:
        """Its frames, for as long as it lives."""


class TalkerLine:
    """A talker of this process; the caller closes that."""

    def __init__(self, talker: LiveTalker, lead: float = 0.2) -> None:
        """lead : seconds by which spoken frames may come before their time."""
        self._talker, self._lead = talker, lead
        self.width, self.height = talker.width, talker.height

    async def say(self, samples: NDArray[np.int16]) -> None:
        """Say more."""
        self._talker.say(samples)

    async def end(self) -> None:
        """The utterance is whole."""
        self._talker.end()

    async def clear(self) -> None:
        """Stop speaking, and forget the rest."""
        self._talker.clear()

    async def shots(self) -> AsyncIterator[Shot]:
        """Its frames. Raises EngineError, EngineClosed."""
        with ThreadPoolExecutor(1, "lsx-line") as pool:
            async for frame in paced(self._talker, pool, self._lead):
                yield Shot(image=frame.image, speaking=frame.speaking, last=frame.last)


class ServerLine:
    """A live session of a server, in JPEG; the caller closes that."""

    def __init__(self, connection: LiveConnection) -> None:
        self._connection = connection
        self.width, self.height = connection.width, connection.height

    async def say(self, samples: NDArray[np.int16]) -> None:
        """Say more."""
        await self._connection.say(samples)

    async def end(self) -> None:
        """The utterance is whole."""
        await self._connection.end()

    async def clear(self) -> None:
        """Stop speaking, and forget the rest."""
        await self._connection.clear()

    async def shots(self) -> AsyncIterator[Shot]:
        """Its frames. Raises ServerRefused, ServerUnreachable."""
        async for picture in self._connection:
            image = await asyncio.to_thread(_decoded, picture.picture)
            yield Shot(image=image, speaking=picture.speaking, last=picture.last)


def _decoded(picture: bytes) -> Frame:
    read: Any = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)


class Speech:
    """An agent's sound on its way through a line: the model hears it at 16 kHz, the listener as it was made."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.rate, self.channels = 16000, 1
        """Of the sound as it was made: that of the first piece."""
        self._resampler: av.AudioResampler | None = None
        self._left: deque[bytearray] = deque()
        self._ended = 0  # utterances at the front of `_left` that are whole

    async def say(self, sound: bytes, rate: int, channels: int) -> None:
        """Say more: int16, `channels` of them in turns."""
        if self._resampler is None or (rate, channels) != (self.rate, self.channels):
            await self._flush()
            self.rate, self.channels = rate, channels
            self._resampler = av.AudioResampler("s16", "mono", 16000)
        if len(self._left) == self._ended:
            self._left.append(bytearray())
        self._left[-1] += sound
        frame = av.AudioFrame.from_ndarray(
            np.frombuffer(sound, np.int16).reshape(1, -1), "s16", "mono" if channels == 1 else "stereo"
        )
        frame.sample_rate = rate
        await self._pass_on(self._resampler.resample(frame))

    async def _pass_on(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            await self._line.say(frame.to_ndarray().reshape(-1).astype(np.int16, copy=False))

    async def _flush(self) -> None:
        if self._resampler is not None:
            await self._pass_on(self._resampler.resample(None))
            self._resampler = None

    async def end(self) -> None:
        """The utterance is whole."""
        await self._flush()
        self._ended = len(self._left)
        await self._line.end()

    async def clear(self) -> None:
        """Stop speaking, and forget the rest."""
        self._resampler, self._ended = None, 0
        self._left.clear()
        await self._line.clear()

    def sound_of(self, shot: Shot) -> bytes:
        """The sound of a spoken frame, as it was made; what its utterance lacks is silence."""
        size = 2 * self.channels * (self.rate // FPS)
        left = self._left[0] if self._left else bytearray()
        sound = bytes(left[:size])
        del left[:size]
        if shot.last and self._ended:
            self._left.popleft()
            self._ended -= 1
        return sound + bytes(size - len(sound))
