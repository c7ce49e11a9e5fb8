"""The worker's side of live sessions: a WebSocket that HTTP processes alone reach, one session at a time."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from lsx.core.keywords import options_of
from lsx.core.sampling import SamplingOptions
from lsx.errors import DeviceLost, LsxError, UsageError
from lsx.runtime.lipsync import LipSync
from lsx.runtime.live.talker import LiveTalker
from lsx.serving.live.messages import Start, event, request_of
from lsx.serving.live.session import LiveSession
from lsx.serving.logs import logger
from lsx.serving.statuses import Rejected, rejection

__all__ = ["LiveRoom"]

_MESSAGE_BYTES = 1 << 20
_QUEUE = 16  # messages that are read before the session takes them
_TRY_LATER, _GOING_AWAY, _REFUSED = 1013, 1001, 1008


class LiveRoom:
    """Takes one session at a time for a LipSync; a second one is told to try another worker.

    Who comes when the one before has gone, and its chunk under way is not computed yet, waits for that.
    """

    def __init__(self, lipsync: LipSync, avatar: Callable[[str], Path], most_steps: int) -> None:
        """avatar : the folder of an avatar that is ready for this bundle; raises Rejected."""
        self._lipsync, self._avatar, self._most_steps = lipsync, avatar, most_steps
        self._secret = secrets.token_urlsafe(24)
        self._client: ServerConnection | None = None  # whose session it is
        self._turn = asyncio.Lock()  # held until a session has given its talker back
        self._address = ""
        self.served = 0
        """Sessions since it opened."""

    def facts(self) -> dict[str, Any]:
        """How HTTP processes reach it, as the database keeps it; the secret is for them alone."""
        return {"address": self._address, "secret": self._secret, "busy": self._busy(), "served": self.served}

    def _busy(self) -> bool:
        return self._client is not None and self._client.state is State.OPEN

    @contextmanager
    def open(self, host: str, port: int = 0) -> Iterator[None]:
        """Listen on a thread of its own for the block. Raises UsageError where that cannot be."""
        loop, began = asyncio.new_event_loop(), threading.Event()
        failed: list[OSError] = []

        def run() -> None:
            asyncio.set_event_loop(loop)
            try:
                server = loop.run_until_complete(self._listening(host, port))
            except OSError as error:
                failed.append(error)
                began.set()
                return
            began.set()
            loop.run_forever()
            server.close(code=_GOING_AWAY)
            loop.run_until_complete(server.wait_closed())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

        thread = threading.Thread(target=run, name="lsx-live-room", daemon=True)
        thread.start()
        began.wait()
        if failed:
            raise UsageError(f"live sessions cannot be listened for on {host}: {failed[0].strerror}")
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _listening(self, host: str, port: int) -> Server:
        server = await serve(
            self._led,
            host,
            port,
            process_request=self._admitted,
            max_size=_MESSAGE_BYTES,
            max_queue=_QUEUE,
            server_header=None,
            compression=None,
        )
        place = next(iter(server.sockets)).getsockname()
        self._address = f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}"
        return server

    def _admitted(self, connection: ServerConnection, request: Request) -> Response | None:
        if compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {self._secret}".encode()):
            return None
        return connection.respond(HTTPStatus.UNAUTHORIZED, "for the HTTP processes of this server alone\n")

    async def _led(self, connection: ServerConnection) -> None:
        if self._busy():
            await connection.close(_TRY_LATER, "live_busy")
            return
        self._client = connection
        try:
            async with self._turn:
                await self._session(connection)
        except ConnectionClosed:
            pass
        except DeviceLost as error:
            logger().error("engines are lost; the worker ends", error=str(error))
            os._exit(1)
        except (LsxError, Rejected) as error:
            await self._refuse(connection, error)
        finally:
            self.served += 1

    async def _refuse(self, connection: ServerConnection, error: Exception) -> None:
        refused = error if isinstance(error, Rejected) else rejection(error, str(error))
        code, _, message = str(refused).partition(": ")
        logger().info("a live session is refused", code=code)
        try:
            await connection.send(json.dumps(event("error", code=code, message=message)))
            await connection.close(_REFUSED, code)
        except ConnectionClosed:
            pass

    async def _session(self, connection: ServerConnection) -> None:
        text = await connection.recv()
        start = request_of(text) if isinstance(text, str) else None
        if not isinstance(start, Start):
            raise UsageError("the first message is not of type start")
        talker = await asyncio.to_thread(self._talker, start)

        async def send(message: bytes | dict[str, Any]) -> None:
            await connection.send(message if isinstance(message, bytes) else json.dumps(message))

        async def messages() -> AsyncIterator[bytes | str]:
            async for message in connection:
                yield message

        logger().info("a live session begins", avatar=start.avatar_id)
        try:
            await LiveSession(talker, start, send).run(messages())
        finally:
            await asyncio.to_thread(talker.close)
            logger().info("a live session ends", avatar=start.avatar_id)

    def _talker(self, start: Start) -> LiveTalker:
        given, bundle = start.options, self._lipsync.bundle
        sampling = options_of(SamplingOptions, None, given.sampling, "options", bundle.sampling)
        bundle.check_sampling(sampling)
        if sampling.steps > self._most_steps:
            raise UsageError(f"steps is {sampling.steps}; this server makes at most {self._most_steps}")
        folder = self._avatar(start.avatar_id)
        looks: dict[str, Any] = {"colour_match": given.colour_match, "sharpen": given.sharpen}
        try:
            return self._lipsync.live(folder, sampling, overlap=given.overlap, **looks)
        except LsxError as error:  # its message names a folder of this machine's
            raise rejection(error, str(error).replace(str(folder), start.avatar_id)) from error
