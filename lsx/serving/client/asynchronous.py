"""The same client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
import httpx

from lsx.errors import ServerRefused, ServerUnreachable
from lsx.serving.avatar_schemas import Avatar
from lsx.serving.client import calls
from lsx.serving.client.calls import Call, JobFields, Page
from lsx.serving.client.conversation import (
    EVENT_SECONDS,
    Patience,
    address_of,
    comes_again,
    content_of,
    headers_of,
    job_of_line,
    number_of,
    refusal,
    seconds_of,
    unreachable,
)
from lsx.serving.client.live import LiveConnection, LiveFields, opened_live, start_of
from lsx.serving.client.saving import Saving
from lsx.serving.schemas import Asset, Job
from lsx.serving.statuses import TERMINAL, JobStatus

__all__ = ["AsyncClient"]

_T = TypeVar("_T")


class AsyncClient:
    """As `Client`, by the same names, to be awaited; `jobs`, `watch` and `avatars` are for `async for`."""

    def __init__(self, server: str | None = None, key: str | None = None, *, patience: float = 30.0) -> None:
        """server : its address, default LSX_SERVER, else http://127.0.0.1:8000; key : default LSX_KEY, else none.

        patience : seconds over which a request is tried again. Raises UsageError.
        """
        self.server, self._patience = address_of(server), patience
        self._headers = headers_of(key)
        self._http = httpx.AsyncClient(base_url=self.server, headers=self._headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    def live(self, avatar: Avatar | str, **more: Unpack[LiveFields]) -> AbstractAsyncContextManager[LiveConnection]:
        """A live session with an avatar that is READY, for a block: `say` to it, and iterate over its pictures.

        more : `options` (steps, guidance, seed and the like), `video` ("jpeg" or "h264"), `quality`, `lead` and
        `end_after`, as docs/live.md tells. Raises UsageError, ServerRefused, ServerUnreachable.
        """
        start = start_of(avatar if isinstance(avatar, str) else avatar.id, more)
        return opened_live(self.server, self._headers, start)

    async def upload(self, path: Path | str) -> Asset:
        """See `Client.upload`."""
        return await self._send(calls.upload(Path(path)))

    async def submit(
        self,
        video: Path | str,
        audio: Path | str | None = None,
        *,
        idempotency_key: str | None = None,
        **more: Unpack[JobFields],
    ) -> Job:
        """See `Client.submit`."""
        return await self._send(calls.submit(video, audio, idempotency_key, more))

    async def job(self, job: Job | str, *, wait: float = 0.0) -> Job:
        """See `Client.job`."""
        return await self._send(calls.job(number_of(job), wait))

    async def jobs(self, status: JobStatus | None = None) -> AsyncIterator[Job]:
        """See `Client.jobs`."""
        async for job in self._every(lambda cursor: calls.job_page(status, 100, cursor)):
            yield job

    async def watch(self, job: Job | str) -> AsyncIterator[Job]:
        """See `Client.watch`."""
        path, patience = f"/v1/jobs/{number_of(job)}/events", Patience(self._patience)
        while True:
            try:
                async with self._opened(path, {}, EVENT_SECONDS) as response:
                    async for line in response.aiter_lines():
                        state = job_of_line(line)
                        if state is None:
                            continue
                        yield state
                        if state.status in TERMINAL:
                            return
                        patience = Patience(self._patience)
            except httpx.TransportError as error:
                await self._rest(patience, unreachable(self.server, error))
            else:
                await self._rest(patience, unreachable(self.server, ConnectionError("the stream of events ended")))

    async def wait(self, job: Job | str, changed: Callable[[Job], object] | None = None) -> Job:
        """See `Client.wait`."""
        last = None
        async for last in self.watch(job):
            if changed is not None:
                changed(last)
        return last or await self.job(job)

    async def cancel(self, job: Job | str) -> Job:
        """See `Client.cancel`."""
        return await self._send(calls.cancel(number_of(job)))

    async def retry(self, job: Job | str, *, idempotency_key: str | None = None) -> Job:
        """See `Client.retry`."""
        return await self._send(calls.retry(number_of(job), idempotency_key))

    async def delete(self, job: Job | str) -> None:
        """See `Client.delete`."""
        await self._send(calls.delete("jobs", number_of(job)))

    async def download(self, job: Job | str, output: Path | str) -> Path:
        """See `Client.download`."""
        path, patience = f"/v1/jobs/{number_of(job)}/output", Patience(self._patience)
        with Saving(Path(output)) as saving:
            while True:
                try:
                    async with self._opened(path, saving.headers(), EVENT_SECONDS) as response:
                        saving.begin(response.status_code)
                        async for part in response.aiter_bytes():
                            saving.write(part)
                            patience = Patience(self._patience)
                    return saving.finished()
                except httpx.TransportError as error:
                    await self._rest(patience, unreachable(self.server, error))

    async def prepare_avatar(
        self, video: Path | str, name: str = "", options: Mapping[str, Any] | None = None
    ) -> Avatar:
        """See `Client.prepare_avatar`."""
        file, known = calls.asset_of(video)
        asset = known if file is None else (await self.upload(file)).id
        return await self._send(calls.prepare(asset, name, options or {}))

    async def avatar(self, avatar_id: str) -> Avatar:
        """See `Client.avatar`."""
        return await self._send(calls.avatar(number_of(avatar_id)))

    async def avatars(self) -> AsyncIterator[Avatar]:
        """See `Client.avatars`."""
        async for avatar in self._every(lambda cursor: calls.avatar_page(100, cursor)):
            yield avatar

    async def delete_avatar(self, avatar_id: str) -> None:
        """See `Client.delete_avatar`."""
        await self._send(calls.delete("avatars", number_of(avatar_id)))

    async def models(self) -> dict[str, Any]:
        """See `Client.models`."""
        return await self._send(calls.models())

    async def _every(self, page_at: Callable[[str | None], Call[Page[_T]]]) -> AsyncIterator[_T]:
        """What is on every page, from the one at no cursor on."""
        cursor = None
        while True:
            page = await self._send(page_at(cursor))
            for one in page.data:
                yield one
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _send(self, call: Call[_T]) -> _T:
        patience = Patience(self._patience)
        while True:
            asked = None
            try:
                response = await self._answer(call)
            except httpx.TransportError as error:
                failure: ServerRefused | ServerUnreachable = unreachable(self.server, error)
            else:
                if response.is_success:
                    return call.read(response.content)
                failure = refusal(response.status_code, response.content)
                again, asked = comes_again(response.status_code, response.headers)
                if not again:
                    raise failure
            await self._rest(patience, failure, asked)

    async def _answer(self, call: Call[Any]) -> httpx.Response:
        about: dict[str, Any] = {"params": call.params, "timeout": seconds_of(call)}
        if call.file is not None:
            headers = {**call.headers, "Content-Length": str(call.file.stat().st_size)}
            return await self._http.request(
                call.method, call.path, content=_bytes_of(call.file), headers=headers, **about
            )
        with content_of(call) as content:
            return await self._http.request(call.method, call.path, **content, **about)

    @asynccontextmanager
    async def _opened(self, path: str, headers: Mapping[str, str], seconds: float) -> AsyncIterator[httpx.Response]:
        """A good answer, as it comes. Raises httpx.TransportError, also where the server asks to come again."""
        async with self._http.stream("GET", path, headers=headers, timeout=seconds, follow_redirects=True) as response:
            if not response.is_success:
                failure = refusal(response.status_code, await response.aread())
                if comes_again(response.status_code, response.headers)[0]:
                    raise httpx.RemoteProtocolError(str(failure))
                raise failure
            yield response

    @staticmethod
    async def _rest(patience: Patience, failure: ServerRefused | ServerUnreachable, asked: float | None = None) -> None:
        pause = patience.pause(asked)
        if pause is None:
            raise failure
        await anyio.sleep(pause)


async def _bytes_of(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while part := await file.read(2**20):
            yield part
