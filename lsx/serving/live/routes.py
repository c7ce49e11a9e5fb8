"""WS /v1/live: a client's live session, led on to a worker that has none."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, WebSocket
from fastapi.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from lsx.errors import UsageError
from lsx.serving.gpu_queue import Owner
from lsx.serving.heartbeat import seen_since
from lsx.serving.http_auth import Gate
from lsx.serving.live.first_ended import first_ended
from lsx.serving.live.messages import Start, event, request_of
from lsx.serving.logs import logger
from lsx.serving.problems import ApiProblem, answer

__all__ = ["LiveCount", "router", "worth_asking"]

router = APIRouter()

_FIRST_SECONDS, _REACH_SECONDS, _SEEN_SECONDS = 10.0, 5.0, 30.0
_MOST_BUSY = 8  # workers that speak, as far as is known, and are asked all the same: they may have ended since
_MESSAGE_BYTES = 64 << 20
_TRY_LATER, _REFUSED, _NORMAL = 1013, 1008, 1000


class _Refused(Exception):
    """A session that does not come about, with the code and the words that its client gets."""

    def __init__(self, code: str, message: str, close: int = _REFUSED) -> None:
        super().__init__(message)
        self.code, self.message, self.close = code, message, close


class LiveCount:
    """The live sessions of each owner. Used on one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """Count one for the block."""
        if self._open[owner] >= self._most:
            raise _Refused("too_many_live", f"at most {self._most} live sessions at once of one key", _TRY_LATER)
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            self._open += Counter()


@router.websocket("/v1/live")
async def live(client: WebSocket) -> None:
    """Let an avatar speak what the client sends, while it is sent. The messages are those of docs/live.md."""
    gate: Gate = client.app.state.gate
    try:
        owner = await run_in_threadpool(gate.owner, client, "jobs")
    except ApiProblem as problem:
        await client.send_denial_response(answer(problem))
        return
    await client.accept()
    try:
        async with client.app.state.live.place(owner.id):
            start = await _start_of(client)
            await run_in_threadpool(_check_avatar, client, owner, start)
            async with _worker(client, start) as (worker, first):
                await _send(client, first)
                code = await _joined(client, worker)
        await _close(client, code, "")
    except _Refused as refused:
        with suppress(RuntimeError, WebSocketDisconnect):
            await client.send_json(event("error", code=refused.code, message=refused.message))
        await _close(client, refused.close, refused.code)
    except WebSocketDisconnect:
        pass


async def _start_of(client: WebSocket) -> Start:
    try:
        text = await asyncio.wait_for(client.receive_text(), _FIRST_SECONDS)
        start = request_of(text)
    except (TimeoutError, KeyError):
        raise _Refused("no_start", 'the first message is JSON of type "start"') from None
    except UsageError as error:
        raise _Refused("invalid_request", str(error)) from error
    if not isinstance(start, Start):
        raise _Refused("no_start", 'the first message is JSON of type "start"')
    return start


def _check_avatar(client: WebSocket, owner: Owner, start: Start) -> None:
    """Raise _Refused unless the owner has this avatar, ready."""
    try:
        avatar = client.app.state.book.avatars.get(owner, start.avatar_id)
    except ApiProblem as problem:
        raise _Refused(problem.code, problem.detail) from problem
    if avatar.status != "READY":
        message = f"the avatar is {avatar.status}; open the session when GET /v1/avatars/{avatar.id} says READY"
        raise _Refused("avatar_not_ready", message, _TRY_LATER)


def _live_workers(client: WebSocket) -> list[Mapping[str, Any]]:
    """Where workers listen that are worth asking, in that order."""
    with client.app.state.engine.connect() as connection:
        rows = seen_since(connection, _SEEN_SECONDS, "worker")
    return worth_asking([row.facts["live"] for row in rows if row.facts.get("live")])


def worth_asking(places: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of a fleet that a client is tried with: all that seem free, at random, and then a few that seem busy."""
    mixed = random.sample(places, len(places))
    busy = [place for place in mixed if place["busy"]]
    return [place for place in mixed if not place["busy"]] + busy[:_MOST_BUSY]


@asynccontextmanager
async def _worker(client: WebSocket, start: Start) -> AsyncIterator[tuple[ClientConnection, str | bytes]]:
    """A worker that has taken the session, and its first message. Raises _Refused where none has."""
    places = await run_in_threadpool(_live_workers, client)
    if not places:
        raise _Refused("no_live_worker", "no worker for live sessions was seen lately", _TRY_LATER)
    for place in places:
        try:
            worker = await connect(
                f"ws://{place['address']}/",
                additional_headers={"Authorization": f"Bearer {place['secret']}"},
                open_timeout=_REACH_SECONDS,
                max_size=_MESSAGE_BYTES,
                compression=None,
                proxy=None,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            logger().warning("a worker cannot be reached for a live session", error=type(error).__name__)
            continue
        async with worker:
            try:
                await worker.send(start.model_dump_json())
                first = await worker.recv()
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == _TRY_LATER:
                    continue
                raise _Refused("worker_crashed", "the worker ended; try again", _TRY_LATER) from closed
            yield worker, first
            return
    raise _Refused("live_busy", "every worker speaks already; try again later", _TRY_LATER)


async def _joined(client: WebSocket, worker: ClientConnection) -> int:
    """Pass on messages both ways until one side ends; the code to close the client's with."""
    return min(await first_ended(_to_worker(client, worker), _to_client(client, worker)))


async def _to_worker(client: WebSocket, worker: ClientConnection) -> int:
    try:
        while True:
            message = await client.receive()
            if message["type"] == "websocket.disconnect":
                return _NORMAL
            text, content = message.get("text"), message.get("bytes")
            await worker.send(content if content is not None else text or "")
    except ConnectionClosed:
        return _code_of(worker)


async def _to_client(client: WebSocket, worker: ClientConnection) -> int:
    with suppress(ConnectionClosed, WebSocketDisconnect, RuntimeError):
        async for message in worker:
            await _send(client, message)
    return _code_of(worker)


def _code_of(worker: ClientConnection) -> int:
    """What the client is told: a worker that ended without a word is to be tried again."""
    code = worker.close_code
    return _NORMAL if code is None else _TRY_LATER if code in (1001, 1006) else code


async def _send(client: WebSocket, message: str | bytes) -> None:
    if isinstance(message, bytes):
        await client.send_bytes(message)
    else:
        await client.send_text(message)


async def _close(client: WebSocket, code: int, reason: str) -> None:
    if client.application_state is not WebSocketState.DISCONNECTED:
        with suppress(RuntimeError):
            await client.close(code, reason)
