"""A live session from a client's side, for asyncio: sound goes in, pictures and sound come out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from lsx.errors import ServerRefused, ServerUnreachable, UsageError
from lsx.serving.live.messages import PCM, Start, read_message

__all__ = ["LiveConnection", "LiveFields", "LivePicture", "opened_live", "start_of"]


class LiveFields(TypedDict, total=False):
    """What a session may be opened with, as of `Start`."""

    options: dict[str, Any]
    video: Literal["jpeg", "h264"]
    quality: int
    lead: float
    end_after: float


def start_of(avatar: str, more: LiveFields) -> Start:
    """The first message. Raises UsageError for what it does not take."""
    try:
        return Start.model_validate({"type": "start", "avatar_id": avatar, **more})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


_PIECE = 8000  # samples of a message at most


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LivePicture:
    """One frame of a live session, and its sound."""

    number: int
    seconds: float
    """Its time since the session's first frame: 1/25 s a frame."""
    picture: bytes
    """JPEG, or a fragment of H.264 in MP4, of which the first brings the file's head."""
    samples: NDArray[np.int16]
    """Its 40 ms of sound, int16 [640], mono at 16 kHz."""
    speaking: bool
    last: bool
    """Whether it is its utterance's last."""


class LiveConnection:
    """An open session; iterate over it for pictures. Made by `AsyncClient.live`."""

    def __init__(self, connection: ClientConnection, ready: dict[str, Any]) -> None:
        self._connection = connection
        self.width: int = ready["width"]
        self.height: int = ready["height"]

    async def say(self, samples: Any) -> None:
        """Say more: int16 or float32 (-1..1) [samples], mono at 16 kHz, of any length.

        Waits where the server has enough to say for half a minute.
        """
        array = np.asarray(samples)
        if array.dtype != np.int16:
            array = np.clip(np.round(array.astype(np.float64) * 32768), -32768, 32767)
        content = array.astype("<i2")
        for start in range(0, len(content), _PIECE):
            await self._send(content[start : start + _PIECE].tobytes())

    async def end(self) -> None:
        """The utterance is whole."""
        await self._send(json.dumps({"type": "end"}))

    async def clear(self) -> None:
        """Stop speaking: what was said and is not shown is forgotten."""
        await self._send(json.dumps({"type": "clear"}))

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def __aiter__(self) -> AsyncIterator[LivePicture]:
        """Every frame, 25 a second, until the session is closed. Raises ServerRefused, ServerUnreachable."""
        sound = np.zeros(0, np.int16)
        try:
            async for message in self._connection:
                if isinstance(message, str):
                    _raise_error(json.loads(message))
                    continue
                media = read_message(message)
                if media.kind == PCM:
                    sound = np.frombuffer(media.content, "<i2").astype(np.int16)
                    continue
                yield LivePicture(
                    number=media.number,
                    seconds=media.seconds,
                    picture=media.content,
                    samples=sound,
                    speaking=media.speaking,
                    last=media.last,
                )
        except ConnectionClosed as closed:
            raise _ended(closed) from closed


def _raise_error(event: dict[str, Any]) -> None:
    if event["type"] == "error":
        raise ServerRefused(f"the server refused the live session: {event['message']}", status=0, code=event["code"])


def _ended(closed: ConnectionClosed) -> ServerUnreachable:
    why = "without a word" if closed.rcvd is None else f"with {closed.rcvd.code} {closed.rcvd.reason}".rstrip()
    return ServerUnreachable(f"the live session ended {why}; open another one")


@asynccontextmanager
async def opened_live(server: str, headers: dict[str, str], start: Start) -> AsyncIterator[LiveConnection]:
    """A session of `server`, an http address, until the block ends. Raises ServerRefused, ServerUnreachable."""
    address = "ws" + server.removeprefix("http") + "/v1/live"
    try:
        connection = await connect(address, additional_headers=headers, max_size=None, compression=None, proxy=None)
    except InvalidStatus as error:
        raise _refused(server, error.response.status_code, error.response.body) from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise ServerUnreachable(f"{server} cannot be reached: {error}. Check --server, and that it runs") from error
    async with connection:
        try:
            await connection.send(start.model_dump_json())
            ready = json.loads(await connection.recv())
        except ConnectionClosed as closed:
            raise _ended(closed) from closed
        _raise_error(ready)
        yield LiveConnection(connection, ready)


def _refused(server: str, status: int, body: bytes | bytearray | None) -> ServerRefused:
    """What is raised for an answer of HTTP in the place of a session."""
    problem: dict[str, Any] = {}
    with suppress(ValueError):
        problem = json.loads(body or b"{}")
    said = problem.get("detail") or f"it answered {status}"
    return ServerRefused(f"{server} refused the live session: {said}", status=status, code=problem.get("code", ""))
