"""What is no job: the page, health, metrics, the model that is served, and the browser's key."""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

import lsx
from lsx.serving.gpu_queue import Owner
from lsx.serving.heartbeat import seen_since
from lsx.serving.http_auth import COOKIE, Gate
from lsx.serving.job_options import JobOptions
from lsx.serving.job_routes import Reader, problems
from lsx.serving.problems import ApiProblem, not_found, unavailable
from lsx.serving.schemas import Login
from lsx.serving.store import free_bytes

__all__ = ["router"]

_SEEN_SECONDS = 30.0
_COOKIE_SECONDS = 30 * 86_400
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

router = APIRouter()


def _page(name: str) -> FileResponse:
    folder = resources.files("lsx.serving") / "page"
    found = folder / name
    suffix = f".{name.rpartition('.')[2]}"
    if "/" in name or "\\" in name or suffix not in _MEDIA_TYPES or not found.is_file():
        raise not_found("page")
    with resources.as_file(found) as path:
        return FileResponse(path, media_type=_MEDIA_TYPES[suffix], headers={"Cache-Control": "no-cache"})


@router.get("/", include_in_schema=False)
@router.get("/live", include_in_schema=False)
@router.get("/job/{job_id}", include_in_schema=False)
def index() -> FileResponse:
    """The page, which shows what its address says."""
    return _page("index.html")


@router.get("/page/{name}", include_in_schema=False)
def page_file(name: str) -> FileResponse:
    """A file of the page's."""
    return _page(name)


@router.get("/v1/session", tags=["server"], responses=problems())
def session(request: Request) -> dict[str, str]:
    """Whose this caller is."""
    key = request.app.state.gate.key_of(request)
    return {"auth": "open", "name": "everybody"} if key is None else {"auth": "key", "name": key.name}


@router.post("/login", status_code=204, include_in_schema=False)
def login(request: Request, body: Login, response: Response) -> None:
    """Keep a key in a cookie that scripts cannot read."""
    if request.app.state.keys.find(body.key) is None:
        raise ApiProblem(401, "key_needed", "the key is none of this server's")
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, body.key, max_age=_COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)


@router.post("/logout", status_code=204, include_in_schema=False)
def logout(response: Response) -> None:
    """Forget the browser's key."""
    response.delete_cookie(COOKIE)


@router.get("/v1/models", tags=["server"], responses=problems())
def models(request: Request, owner: Reader) -> dict[str, Any]:
    """What is served, by the workers that were seen lately, and what it takes."""
    del owner
    settings = request.app.state.settings
    with request.app.state.engine.connect() as connection:
        facts = [row.facts for row in seen_since(connection, _SEEN_SECONDS, "worker")]
    names = ("max_upload_bytes", "max_seconds", "max_pixels", "max_steps")
    limits = {name: getattr(settings, name) for name in names}
    seen = {fact["digest"]: fact | {"live": "live" in fact} for fact in facts}  # its address and secret are ours
    schema = JobOptions.model_json_schema()
    data = [{"id": digest} | fact | {"limits": limits, "options": schema} for digest, fact in seen.items()]
    return {"data": data or [{"id": None, "bundle": None, "limits": limits, "options": schema}]}


@router.get("/v1/health/live", tags=["server"])
def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "live"}


@router.get("/v1/health/ready", tags=["server"], responses={503: {"description": "Not ready; `checks` says why"}})
def ready(request: Request, least: Annotated[int, Query(alias="workers", ge=0, le=10_000)] = 1) -> JSONResponse:
    """Whether jobs can be taken and made: the database answers, so many workers were seen, there is space.

    Where workers come and go with the queue, as many as 0 are enough to take jobs in.
    """
    state = request.app.state
    try:
        with state.engine.connect() as connection:
            workers = len(seen_since(connection, _SEEN_SECONDS, "worker"))
        database = True
    except sa.exc.SQLAlchemyError:
        database, workers = False, 0
    free = free_bytes(state.store, state.settings.data)
    space = free is None or free >= state.settings.min_free_bytes
    checks = {"database": database, "workers": workers, "space": space}
    fine = database and workers >= least and space
    return JSONResponse({"status": "ready" if fine else "not ready", "checks": checks}, 200 if fine else 503)


def _measured(request: Request) -> Owner:
    """On loopback without proxies everybody may read metrics; else keys with the scope."""
    gate: Gate = request.app.state.gate
    client = request.client.host if request.client is not None else ""
    if client in ("127.0.0.1", "::1") and "x-forwarded-for" not in request.headers:
        return Owner("metrics", 0)
    return gate.owner(request, "metrics")


@router.get("/v1/metrics", tags=["server"], response_class=Response, responses=problems())
def metrics(request: Request, owner: Annotated[Owner, Depends(_measured)]) -> Response:
    """Prometheus's text."""
    del owner
    try:
        return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
    except sa.exc.SQLAlchemyError as error:
        raise unavailable("the database does not answer") from error


@router.get("/v1/version", tags=["server"])
def version() -> dict[str, str]:
    """Of lsx, and of this API."""
    return {"release": lsx.__version__, "api": "v1"}
