"""/v1/avatars: videos that are prepared once, for any number of jobs."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request, Response

from lsx.serving.avatar_book import AvatarBook, check_prepare
from lsx.serving.avatar_schemas import Avatar, AvatarList, AvatarQuery, AvatarRequest
from lsx.serving.byte_ranges import ranged
from lsx.serving.gpu_queue import Owner
from lsx.serving.job_form import read_json
from lsx.serving.job_routes import IdempotencyKey, Reader, Writer, problems
from lsx.serving.problems import invalid
from lsx.serving.upload_labels import length_of
from lsx.serving.uploads import Uploads

__all__ = ["is_json", "router"]

_LOOK = 0.25

router = APIRouter(prefix="/v1/avatars", tags=["avatars"])

_VIDEO = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "What is to be prepared, of an upload; or the video itself, with the same options in the query.",
        "content": {
            "application/json": {"schema": AvatarRequest.model_json_schema()},
            "video/mp4": _VIDEO,
            "application/octet-stream": _VIDEO,
        },
    }
}


def is_json(content_type: str | None) -> bool:
    """Whether a request's body is JSON, and not a video."""
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"


def _book(request: Request) -> AvatarBook:
    book: AvatarBook = request.app.state.book.avatars
    return book


@router.post("", status_code=202, responses=problems(400, 413, 415, 422, 507), openapi_extra=_BODY)
async def create(
    request: Request,
    response: Response,
    owner: Writer,
    query: Annotated[AvatarQuery, Query()],
    idempotency_key: IdempotencyKey = None,
    content_type: Annotated[str, Header(include_in_schema=False)] = "",
) -> Avatar:
    """Take an avatar in: a worker prepares it, and jobs may name it at once.

    The body is JSON that names an upload, or a video, which is kept as an upload first.
    """
    given = query.model_dump(exclude_unset=True)
    if is_json(content_type):
        if given:
            raise invalid("give the options in the JSON, not in the query", next(iter(given)))
        asked, sha256 = read_json(AvatarRequest, await request.body()), None
    else:
        asked, sha256 = await _uploaded(request, owner, given, content_type)

    def entered() -> Avatar:
        return _book(request).create(owner, asked, idempotency_key, sha256=sha256)

    avatar = await anyio.to_thread.run_sync(entered)
    response.headers["Location"] = avatar.urls.get
    return avatar


async def _uploaded(
    request: Request, owner: Owner, given: dict[str, Any], content_type: str
) -> tuple[AvatarRequest, str]:
    """The request, with an upload of its body, and the body's SHA-256. Raises ApiProblem."""
    name = given.pop("filename", "")
    check_prepare(given)
    known = length_of(request.headers.get("content-length", ""))
    uploads: Uploads = request.app.state.uploads
    asset = await uploads.take(owner.id, name, content_type or "application/octet-stream", known, request.stream())
    return AvatarRequest(asset_id=asset.id, **given), asset.sha256


@router.get("", responses=problems(422))
def list_avatars(
    request: Request,
    owner: Reader,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> AvatarList:
    """The key's own avatars, latest first."""
    return _book(request).page(owner, limit, cursor)


@router.get("/{avatar_id}", responses=problems(404, 422))
async def get(
    request: Request, avatar_id: str, owner: Reader, wait: Annotated[float, Query(ge=0, le=60)] = 0
) -> Avatar:
    """An avatar; `wait` answers when it is READY or FAILED, or so many seconds have gone."""
    until, book = time.monotonic() + wait, _book(request)
    avatar = await anyio.to_thread.run_sync(book.get, owner, avatar_id)
    while avatar.status not in ("READY", "FAILED") and time.monotonic() < until:
        await anyio.sleep(_LOOK)
        avatar = await anyio.to_thread.run_sync(book.get, owner, avatar_id)
    return avatar


@router.get("/{avatar_id}/video", responses=problems(404, 410, 416) | {206: {}}, response_class=Response)
def video(request: Request, avatar_id: str, owner: Reader) -> Response:
    """The video that it was prepared from, whole: the part is that of its options."""
    key = _book(request).video_key(owner, avatar_id)
    return ranged(request, request.app.state.store, key, "video/mp4", avatar_id, attached=False)


@router.delete("/{avatar_id}", status_code=204, responses=problems(404))
def delete(request: Request, avatar_id: str, owner: Writer) -> None:
    """Forget an avatar and remove its files; where a job that runs now still reads them, soon after."""
    if _book(request).delete(owner, avatar_id):
        request.app.state.store.remove(f"avatars/{avatar_id}")
