"""/v2/generate: the same jobs for programs that were written for sync.so, whose documentation describes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from lsx.serving.form_parts import form_parts, is_form
from lsx.serving.generate_schemas import Generation, GenerationRequest, generation_of, job_request_of
from lsx.serving.gpu_queue import Owner
from lsx.serving.job_form import known_by_content, read_json
from lsx.serving.job_routes import IdempotencyKey, Reader, Writer, ended_or_later, job_book, taken_in
from lsx.serving.problems import ApiProblem, invalid
from lsx.serving.schemas import Asset, Job
from lsx.serving.statuses import JobStatus

__all__ = ["router"]

_MOST_TEXT = 1 << 20
_FILES, _JSON = ("video", "audio"), ("input", "options", "segments")
_TEXTS = ("model", "webhookUrl", "outputFileName")
_SIGNED_SECONDS = 24 * 3600


class _SyncRoute(APIRoute):
    """Errors as that SDK reads them: `message` and `statusCode`, and 400 where this API says 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"] if part != "body")
                return _told(400, "invalid_request", f"{place}: {first['msg']}", {})
            except ApiProblem as problem:
                status = 400 if problem.status == 422 else problem.status
                return _told(status, problem.code, problem.detail, problem.headers)

        return handled


def _told(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return JSONResponse({"message": message, "statusCode": status, "error_code": code}, status, headers)


router = APIRouter(prefix="/v2", route_class=_SyncRoute, include_in_schema=False)


@router.post("/generate", status_code=201)
async def generate(
    request: Request,
    owner: Writer,
    idempotency_key: IdempotencyKey = None,
    content_type: Annotated[str, Header()] = "",
) -> Generation:
    """Take a job in: JSON, or a form with files."""
    assets: dict[str, Asset] = {}
    if is_form(content_type):
        asked = await _of_form(request, owner, content_type, assets)
    else:
        asked = read_json(GenerationRequest, await request.body())

    def entered() -> Generation:
        body = job_request_of(asked)
        job = taken_in(request, owner, body, known_by_content(body, assets.values()), idempotency_key)
        return _generation(request, owner, job)

    return await anyio.to_thread.run_sync(entered)


async def _of_form(request: Request, owner: Owner, content_type: str, assets: dict[str, Asset]) -> GenerationRequest:
    """A form's request, its files uploaded and put to `assets` by their part's name."""
    told: dict[str, Any] = {}
    async for part in form_parts(request.stream(), content_type):
        if part.name in _FILES:
            asset = await request.app.state.uploads.take(owner.id, part.filename, part.media_type, None, part.body)
            assets[part.name] = asset
        elif part.name in _TEXTS:
            told[part.name] = (await part.read(_MOST_TEXT)).decode("utf-8", "replace")
        elif part.name in _JSON:
            told[part.name] = _json(part.name, await part.read(_MOST_TEXT))
        else:
            raise invalid(f"the form has a part {part.name!r}", "form")
    files = [{"type": kind, "assetId": asset.id} for kind, asset in assets.items()]
    others = told.get("input") or []
    if not isinstance(others, list):
        raise invalid("input is no list", "input")
    return read_json(GenerationRequest, json.dumps(told | {"input": [*files, *others]}).encode())


def _json(name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise invalid(f"{name} is no JSON: {error}", name) from error


@router.get("/generate/{job_id}")
async def get(
    request: Request,
    job_id: str,
    owner: Reader,
    wait: bool = False,
    timeout: Annotated[float, Query(ge=0, le=60)] = 30,
) -> Generation:
    """A generation; `wait` answers when it has ended, or after `timeout` seconds."""
    job = await ended_or_later(request, owner, job_id, timeout if wait else 0)
    return await anyio.to_thread.run_sync(_generation, request, owner, job)


@router.get("/generations")
def listed(request: Request, owner: Reader, status: JobStatus | None = None) -> list[Generation]:
    """The latest hundred of the key's own, whichever API they came by."""
    return [_generation(request, owner, job) for job in job_book(request).page(owner, status, 100, None).data]


def _generation(request: Request, owner: Owner, job: Job) -> Generation:
    def output(number: str) -> str:
        """The object store's own address, which needs no key, or this server's."""
        if request.app.state.settings.redirect_outputs:
            signed = request.app.state.store.signed(job_book(request).output(owner, number).key, _SIGNED_SECONDS)
            if signed is not None:
                return str(signed)
        return f"{request.base_url}v1/jobs/{number}/output"

    return generation_of(job, output)
