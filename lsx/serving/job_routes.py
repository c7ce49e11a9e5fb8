"""/v1/jobs: taken in, listed, watched, cancelled, tried again, removed, and what they made."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import RedirectResponse
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from lsx.serving.byte_ranges import ranged
from lsx.serving.form_parts import is_form
from lsx.serving.gpu_queue import Owner
from lsx.serving.http_auth import needs
from lsx.serving.job_book import JobBook
from lsx.serving.job_events import JobEvents
from lsx.serving.job_form import job_of_form, read_json
from lsx.serving.outside import AddressRefused, check_url
from lsx.serving.problems import invalid
from lsx.serving.schemas import Job, JobList, JobRequest, Problem
from lsx.serving.statuses import TERMINAL, JobStatus

__all__ = ["IdempotencyKey", "Reader", "Writer", "ended_or_later", "job_book", "problems", "router", "taken_in"]

_SIGNED_SECONDS = 3600
_LOOK = 0.25
_PING = 15

IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[A-Za-z0-9._~-]{1,128}$", description="The same key and body give the same job, also much later"),
]
Writer = Annotated[Owner, Depends(needs("jobs"))]
Reader = Annotated[Owner, Depends(needs("read"))]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route answers with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"model": Problem, "content": content} for status in (401, 403, 429, 503, *statuses)}


router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"video": _FILE, "audio": _FILE, "job": {"type": "string"}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}


class _JobStream(EventSourceResponse):
    """A job's events. Its place among the owner's is free when it ends, also where the client went before it began."""

    def __init__(self, watched: JobEvents, owner: str, job: Job) -> None:
        """Raises ApiProblem for one stream too many."""
        super().__init__(self._lines(watched, job), ping=_PING)
        watched.enter(owner, job.id)
        self._leave = partial(watched.leave, owner, job.id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()

    @staticmethod
    async def _lines(watched: JobEvents, job: Job) -> AsyncIterator[dict[str, str]]:
        async for state in watched.follow(job):
            yield {"event": "job", "data": json.dumps(state.model_dump(mode="json"))}


def job_book(request: Request) -> JobBook:
    """The server's jobs."""
    book: JobBook = request.app.state.book
    return book


@router.post("", status_code=202, responses=problems(400, 413, 415, 422, 507), openapi_extra=_BODY)
async def create(
    request: Request,
    response: Response,
    owner: Writer,
    idempotency_key: IdempotencyKey = None,
    content_type: Annotated[str, Header(include_in_schema=False)] = "",
) -> Job:
    """Take a job in. It is kept when this answers, whatever happens to the server then.

    The body is JSON, or a form with the parts `video` and `audio`, which become uploads, and `job`, the JSON.
    """
    if is_form(content_type):
        body, asked = await job_of_form(request.app.state.uploads, owner, request.stream(), content_type)
    else:
        body = asked = read_json(JobRequest, await request.body())

    job = await anyio.to_thread.run_sync(taken_in, request, owner, body, asked, idempotency_key)
    response.headers["Location"] = job.urls.get
    return job


def taken_in(request: Request, owner: Owner, body: JobRequest, asked: JobRequest, key: str | None) -> Job:
    """The job of a request; asked : by what it is known again under the same key. Raises ApiProblem."""
    _check_hook(request, body)
    book = job_book(request)
    return book.known(owner, key, asked) or book.create(
        owner, request.app.state.downloads.fetched(owner, body), key, asked=asked
    )


def _check_hook(request: Request, body: JobRequest) -> None:
    if body.webhook_url is None:
        return
    try:
        check_url(body.webhook_url, allowed=None, private=request.app.state.settings.allow_hook)
    except AddressRefused as error:
        raise invalid(f"webhook_url: {error}", "webhook_url", "address_refused") from error


@router.get("", responses=problems(422))
def list_jobs(
    request: Request,
    owner: Reader,
    status: JobStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> JobList:
    """The key's own jobs, latest first."""
    return job_book(request).page(owner, status, limit, cursor)


@router.get("/{job_id}", responses=problems(404, 422))
async def get(request: Request, job_id: str, owner: Reader, wait: Annotated[float, Query(ge=0, le=60)] = 0) -> Job:
    """A job; `wait` answers when it has ended, or so many seconds have gone."""
    return await ended_or_later(request, owner, job_id, wait)


async def ended_or_later(request: Request, owner: Owner, job_id: str, wait: float) -> Job:
    """A job when it has ended, or `wait` seconds have gone. Raises ApiProblem."""
    until, book = time.monotonic() + wait, job_book(request)
    job = await anyio.to_thread.run_sync(book.get, owner, job_id)
    while job.status not in TERMINAL and time.monotonic() < until:
        await anyio.sleep(_LOOK)
        job = await anyio.to_thread.run_sync(book.get, owner, job_id)
    return job


@router.get("/{job_id}/events", responses=problems(404), response_class=EventSourceResponse)
async def events(request: Request, job_id: str, owner: Reader) -> EventSourceResponse:
    """The job whenever it changes, as server-sent events, until it has ended."""
    job = await anyio.to_thread.run_sync(job_book(request).get, owner, job_id)
    return _JobStream(request.app.state.events, owner.id, job)


@router.post("/{job_id}/cancel", status_code=202, responses=problems(404, 409))
def cancel(request: Request, job_id: str, owner: Writer) -> Job:
    """End a job. It is CANCELED at once, and the GPU is free within a chunk."""
    return job_book(request).cancel(owner, job_id)


@router.post("/{job_id}/retry", status_code=202, responses=problems(404, 409, 422))
def retry(request: Request, job_id: str, owner: Writer, idempotency_key: IdempotencyKey = None) -> Job:
    """A new job like one that failed or was canceled."""
    return job_book(request).retry(owner, job_id, idempotency_key)


@router.delete("/{job_id}", status_code=204, responses=problems(404))
def delete(request: Request, job_id: str, owner: Writer) -> None:
    """Forget a job and remove what it made; one that has not ended is cancelled first."""
    job_book(request).delete(owner, job_id)
    request.app.state.store.remove(f"outputs/{job_id}")


@router.get("/{job_id}/output", responses=problems(404, 409, 410, 416) | {206: {}, 307: {}}, response_class=Response)
def output(request: Request, job_id: str, owner: Reader, download: bool = False) -> Response:
    """The video. Ranges are answered; an object store answers itself, under an address of an hour's life."""
    made, store = job_book(request).output(owner, job_id), request.app.state.store
    signed = store.signed(made.key, _SIGNED_SECONDS)
    if signed is not None and request.app.state.settings.redirect_outputs:
        return RedirectResponse(signed, 307)
    return ranged(request, store, made.key, made.media_type, made.file_name, attached=download)
