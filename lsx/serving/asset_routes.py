"""/v1/assets: videos and sounds, uploaded before the jobs that use them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from lsx.serving.byte_ranges import ranged
from lsx.serving.job_routes import Reader, Writer, problems
from lsx.serving.problems import not_found
from lsx.serving.schemas import Asset
from lsx.serving.upload_labels import length_of, media_type_of
from lsx.serving.uploads import Uploads, asset_of

__all__ = ["router"]

router = APIRouter(prefix="/v1/assets", tags=["assets"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _uploads(request: Request) -> Uploads:
    uploads: Uploads = request.app.state.uploads
    return uploads


@router.post("", status_code=201, responses=problems(413, 415, 422, 507), openapi_extra=_BODY)
async def upload(
    request: Request,
    owner: Writer,
    filename: Annotated[str, Query(max_length=200)] = "",
    content_type: Annotated[str, Header()] = "application/octet-stream",
) -> Asset:
    """Keep the request's body, a video or a sound, and say what it is."""
    known = length_of(request.headers.get("content-length", ""))
    return await _uploads(request).take(owner.id, filename, content_type, known, request.stream())


@router.get("/{asset_id}", responses=problems(404))
def get(request: Request, asset_id: str, owner: Reader) -> Asset:
    """An upload."""
    row = _uploads(request).row(owner.id, asset_id)
    if row is None:
        raise not_found("asset")
    return asset_of(row)


@router.get("/{asset_id}/content", responses=problems(404, 410, 416) | {206: {}}, response_class=Response)
def content(request: Request, asset_id: str, owner: Reader) -> Response:
    """Its bytes, as they were uploaded."""
    row = _uploads(request).row(owner.id, asset_id)
    if row is None:
        raise not_found("asset")
    kind = "video/mp4" if row.kind == "video" else "audio/mpeg"
    stated = media_type_of(row.media_type)
    known = stated if stated.startswith(("video/", "audio/")) else kind
    return ranged(request, request.app.state.store, f"uploads/{row.id}", known, row.filename, attached=False)
