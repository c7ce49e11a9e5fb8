"""A client without asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

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
from lsx.serving.client.saving import Saving
from lsx.serving.schemas import Asset, Job
from lsx.serving.statuses import TERMINAL, JobStatus

__all__ = ["Client"]

_T = TypeVar("_T")


class Client:
    """A server of `lsx serve`, asked from Python. Close it, or use it in a `with` statement.

    >>> with Client("http://127.0.0.1:8000", key="lsx_...") as client:  # doctest: +SKIP
    ...     job = client.submit("face.mp4", "speech.wav", options={"steps": 20})
    ...     client.download(client.wait(job), "result.mp4")

    What the network or a busy server refuses is asked again until `patience` is over; a job is never made twice by
    that. Every method raises ServerUnreachable where there is no answer then, and ServerRefused for another answer
    than the one wanted, with HTTP's `status` and the API's `code`.
    """

    def __init__(self, server: str | None = None, key: str | None = None, *, patience: float = 30.0) -> None:
        """server : its address, default LSX_SERVER, else http://127.0.0.1:8000; key : default LSX_KEY, else none.

        patience : seconds over which a request is tried again. Raises UsageError.
        """
        self.server, self._patience = address_of(server), patience
        self._http = httpx.Client(base_url=self.server, headers=headers_of(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def upload(self, path: Path | str) -> Asset:
        """Send a video or a sound; the server says what it is. Raises OSError."""
        return self._send(calls.upload(Path(path)))

    def submit(
        self,
        video: Path | str,
        audio: Path | str | None = None,
        *,
        idempotency_key: str | None = None,
        **more: Unpack[JobFields],
    ) -> Job:
        """A new job. The result has the mouth of `video` move to `audio`.

        video, audio : paths of files, which are sent; ids of what was uploaded; addresses that the server may fetch;
        the video also an avatar's id. idempotency_key : the same again gives the same job, default one of its own.
        more : `options` as of `lsx run`, `priority`, `webhook_url`, `webhook_events_filter`, `output_file_name`,
        `metadata`. Raises MediaError for a file that is not there, UsageError for what no server takes.
        """
        return self._send(calls.submit(video, audio, idempotency_key, more))

    def job(self, job: Job | str, *, wait: float = 0.0) -> Job:
        """A job as it is now; wait : seconds up to 60 that the server may let go until it has ended."""
        return self._send(calls.job(number_of(job), wait))

    def jobs(self, status: JobStatus | None = None) -> Iterator[Job]:
        """The key's own jobs, latest first."""
        yield from self._every(lambda cursor: calls.job_page(status, 100, cursor))

    def watch(self, job: Job | str) -> Iterator[Job]:
        """A job whenever it changes, until it has ended, also over a server's restart."""
        path, patience = f"/v1/jobs/{number_of(job)}/events", Patience(self._patience)
        while True:
            try:
                with self._opened(path, {}, EVENT_SECONDS) as response:
                    for state in filter(None, map(job_of_line, response.iter_lines())):
                        yield state
                        if state.status in TERMINAL:
                            return
                        patience = Patience(self._patience)
            except httpx.TransportError as error:
                self._rest(patience, unreachable(self.server, error))
            else:
                self._rest(patience, unreachable(self.server, ConnectionError("the stream of events ended")))

    def wait(self, job: Job | str, changed: Callable[[Job], object] | None = None) -> Job:
        """A job when it has ended, well or not: see its `status`. changed : called with it whenever it changes."""
        last = None
        for last in self.watch(job):
            if changed is not None:
                changed(last)
        return last or self.job(job)

    def cancel(self, job: Job | str) -> Job:
        """End a job. The GPU is free within a chunk."""
        return self._send(calls.cancel(number_of(job)))

    def retry(self, job: Job | str, *, idempotency_key: str | None = None) -> Job:
        """A new job like one that failed or was canceled."""
        return self._send(calls.retry(number_of(job), idempotency_key))

    def delete(self, job: Job | str) -> None:
        """Forget a job and remove what it made."""
        self._send(calls.delete("jobs", number_of(job)))

    def download(self, job: Job | str, output: Path | str) -> Path:
        """Write what a job made to `output`, whole or not at all; a broken connection goes on where it broke.

        Raises OutputError where it cannot be written.
        """
        path, patience = f"/v1/jobs/{number_of(job)}/output", Patience(self._patience)
        with Saving(Path(output)) as saving:
            while True:
                try:
                    with self._opened(path, saving.headers(), EVENT_SECONDS) as response:
                        saving.begin(response.status_code)
                        for part in response.iter_bytes():
                            saving.write(part)
                            patience = Patience(self._patience)
                    return saving.finished()
                except httpx.TransportError as error:
                    self._rest(patience, unreachable(self.server, error))

    def prepare_avatar(self, video: Path | str, name: str = "", options: Mapping[str, Any] | None = None) -> Avatar:
        """Have a video prepared once, for any number of jobs. options : as of `lsx prepare`."""
        file, known = calls.asset_of(video)
        asset = known if file is None else self.upload(file).id
        return self._send(calls.prepare(asset, name, options or {}))

    def avatar(self, avatar_id: str) -> Avatar:
        """An avatar as it is now; jobs can have it at once, and wait for it."""
        return self._send(calls.avatar(number_of(avatar_id)))

    def avatars(self) -> Iterator[Avatar]:
        """The key's own avatars, latest first."""
        yield from self._every(lambda cursor: calls.avatar_page(100, cursor))

    def delete_avatar(self, avatar_id: str) -> None:
        """Forget an avatar and remove its files."""
        self._send(calls.delete("avatars", number_of(avatar_id)))

    def models(self) -> dict[str, Any]:
        """What the server runs, and its limits."""
        return self._send(calls.models())

    def _every(self, page_at: Callable[[str | None], Call[Page[_T]]]) -> Iterator[_T]:
        """What is on every page, from the one at no cursor on."""
        cursor = None
        while True:
            page = self._send(page_at(cursor))
            yield from page.data
            cursor = page.next_cursor
            if cursor is None:
                return

    def _send(self, call: Call[_T]) -> _T:
        patience = Patience(self._patience)
        while True:
            asked = None
            try:
                response = self._answer(call)
            except httpx.TransportError as error:
                failure: ServerRefused | ServerUnreachable = unreachable(self.server, error)
            else:
                if response.is_success:
                    return call.read(response.content)
                failure = refusal(response.status_code, response.content)
                again, asked = comes_again(response.status_code, response.headers)
                if not again:
                    raise failure
            self._rest(patience, failure, asked)

    def _answer(self, call: Call[Any]) -> httpx.Response:
        about: dict[str, Any] = {"params": call.params, "timeout": seconds_of(call)}
        if call.file is not None:
            with call.file.open("rb") as file:
                return self._http.request(call.method, call.path, content=file, headers=call.headers, **about)
        with content_of(call) as content:
            return self._http.request(call.method, call.path, **content, **about)

    @contextmanager
    def _opened(self, path: str, headers: Mapping[str, str], seconds: float) -> Iterator[httpx.Response]:
        """A good answer, as it comes. Raises httpx.TransportError, also where the server asks to come again."""
        with self._http.stream("GET", path, headers=headers, timeout=seconds, follow_redirects=True) as response:
            if not response.is_success:
                failure = refusal(response.status_code, response.read())
                if comes_again(response.status_code, response.headers)[0]:
                    raise httpx.RemoteProtocolError(str(failure))
                raise failure
            yield response

    @staticmethod
    def _rest(patience: Patience, failure: ServerRefused | ServerUnreachable, asked: float | None = None) -> None:
        pause = patience.pause(asked)
        if pause is None:
            raise failure
        time.sleep(pause)
