"""One live session in a worker: sound in, pictures and sound out, on a clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lsx.core.tensors import Frame
from lsx.errors import UsageError
from lsx.media.live_pictures import H264Fragments, jpeg
from lsx.runtime.live.frame import LiveFrame
from lsx.runtime.live.pacing import paced
from lsx.runtime.live.talker import LiveTalker
from lsx.serving.live.first_ended import first_ended
from lsx.serving.live.messages import JPEG, MP4, PCM, Clear, End, Media, Start, event, request_of

__all__ = ["MOST_PENDING", "LiveSession"]

MOST_PENDING = 30.0
"""Seconds of sound that wait, above which no more is read: the sender is held up."""

_LOOK = 0.05
Send = Callable[[bytes | dict[str, Any]], Awaitable[None]]


class LiveSession:
    """A talker, and a client. `run` ends when the client's messages do."""

    def __init__(self, talker: LiveTalker, start: Start, send: Send) -> None:
        """send : to the client, waiting where that takes nothing more."""
        self._talker, self._start, self._send = talker, start, send
        self._heard: float | None = None  # when sound came last, of an utterance that is not ended
        self._odd = b""
        self._utterance: int | None = None

    async def run(self, messages: AsyncIterator[bytes | str]) -> None:
        """Speak until there are no more messages. Raises UsageError for what is none, EngineError."""
        talker = self._talker
        facts = {"width": talker.width, "height": talker.height, "fps": 25, "sample_rate": 16000}
        await self._send(event("ready", **facts, video=self._start.video))
        pool = ThreadPoolExecutor(2, "lsx-live")
        try:
            await first_ended(self._listen(messages), self._show(pool), self._end_when_nothing_comes())
        finally:
            pool.shutdown(wait=False)  # its threads wait for a frame's time at most, and not on this loop

    async def _listen(self, messages: AsyncIterator[bytes | str]) -> None:
        async for message in messages:
            if isinstance(message, bytes):
                self._say(message)
                while self._talker.pending > MOST_PENDING:
                    await asyncio.sleep(_LOOK)
                continue
            request = request_of(message)
            if isinstance(request, Start):
                raise UsageError("the session has begun; open another one")
            if isinstance(request, End):
                self._end()
            if isinstance(request, Clear):
                self._heard, self._odd = None, b""
                self._talker.clear()
                await self._send(event("cleared"))

    def _say(self, content: bytes) -> None:
        """Little-endian int16, in pieces of any number of bytes."""
        content = self._odd + content
        whole = len(content) - len(content) % 2
        self._odd = content[whole:]
        if whole:
            self._talker.say(np.frombuffer(content[:whole], "<i2").astype(np.int16))
            self._heard = time.perf_counter()

    def _end(self) -> None:
        self._heard, self._odd = None, b""
        self._talker.end()

    async def _end_when_nothing_comes(self) -> None:
        while True:
            heard, now = self._heard, time.perf_counter()
            if heard is not None and now - heard >= self._start.end_after:
                self._end()
            await asyncio.sleep(_LOOK if heard is None else max(heard + self._start.end_after - now, 0.005))

    async def _show(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        talker, start = self._talker, self._start
        encoder = H264Fragments(talker.width, talker.height, start.quality) if start.video == "h264" else None
        last: tuple[Frame | None, bytes] = (None, b"")
        async for frame in paced(talker, pool, start.lead):
            await self._tell(frame)
            if encoder is not None:
                kind, picture = MP4, await loop.run_in_executor(pool, encoder.add, frame.image)
            elif last[0] is frame.image:
                kind, picture = JPEG, last[1]
            else:
                kind, picture = JPEG, await loop.run_in_executor(pool, jpeg, frame.image, start.quality)
                last = (frame.image, picture)
            sound = frame.samples.astype("<i2").tobytes()
            for one, content in ((PCM, sound), (kind, picture)):
                await self._send(Media(one, frame.number, frame.speaking, frame.last, content).packed())

    async def _tell(self, frame: LiveFrame) -> None:
        """Say where an utterance begins, and after which frame it ended."""
        if frame.utterance != self._utterance:
            if self._utterance is not None:
                await self._send(event("stopped", utterance=self._utterance, seconds=frame.seconds))
            if frame.utterance is not None:
                await self._send(event("speaking", utterance=frame.utterance, seconds=frame.seconds))
            self._utterance = frame.utterance
