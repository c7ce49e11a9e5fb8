"""The HTTP side: an application that takes jobs in and tells of them, and runs none. Neither engines nor CUDA."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

import lsx
from lsx.errors import OutputError
from lsx.serving import asset_routes, avatar_routes, job_routes, site_routes
from lsx.serving.api_keys import KeyBook
from lsx.serving.database import database_url, engine_for
from lsx.serving.downloads import Downloads
from lsx.serving.http_auth import Gate
from lsx.serving.job_book import JobBook
from lsx.serving.job_events import JobEvents
from lsx.serving.logs import logger
from lsx.serving.problems import ApiProblem, unavailable
from lsx.serving.serve_metrics import ServeMetrics
from lsx.serving.settings import ServeSettings
from lsx.serving.store import store_at
from lsx.serving.uploads import Uploads

__all__ = ["create_app"]

_CONNECTIONS = 20
_MOST_JSON = 1 << 20
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PROBLEM = "application/problem+json"


def create_app(settings: ServeSettings) -> FastAPI:
    """The application. Its database must have been migrated."""
    engine = engine_for(database_url(settings.database, settings.data), pool=_CONNECTIONS)
    book, store = JobBook(engine, settings), store_at(settings.store, settings.data)
    watched = JobEvents(book.snapshot, settings.max_event_streams)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        poller = asyncio.create_task(watched.poll())
        yield
        poller.cancel()
        engine.dispose()

    app = FastAPI(title="lsx serve", version=lsx.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    state: Any = app.state
    state.settings, state.engine, state.book, state.store, state.events = settings, engine, book, store, watched
    state.uploads = Uploads(engine, store, settings)
    state.downloads = Downloads(state.uploads, settings)
    state.keys = KeyBook(engine)
    state.gate = Gate(state.keys, settings)
    state.metrics = ServeMetrics(engine)
    for router in (job_routes.router, asset_routes.router, avatar_routes.router, site_routes.router):
        app.include_router(router)
    app.middleware("http")(_counted)
    _tell_errors(app)
    return app


async def _counted(request: Request, call_next: Any) -> Response:
    """Count a request, refuse JSON bodies that are too large, and add the headers that browsers mind."""
    started = time.perf_counter()
    length = request.headers.get("content-length", "")
    is_video = request.url.path == "/v1/avatars" and not avatar_routes.is_json(request.headers.get("content-type"))
    is_upload = request.url.path == "/v1/assets" or is_video
    unsized = "transfer-encoding" in request.headers
    if not is_upload and (unsized or (length.isdigit() and int(length) > _MOST_JSON)):
        detail = f"at most {_MOST_JSON} bytes are taken, with a Content-Length"
        response: Response = _answer(ApiProblem(413, "too_large", detail))
    else:
        response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if response.headers.get("content-type", "").startswith("text/html"):
        response.headers["Content-Security-Policy"] = _POLICY
    route = getattr(request.scope.get("route"), "path", "none")
    metrics: ServeMetrics = request.app.state.metrics
    metrics.requests.labels(request.method, route, str(response.status_code)).inc()
    metrics.seconds.labels(route).observe(time.perf_counter() - started)
    return response


def _answer(problem: ApiProblem) -> JSONResponse:
    return JSONResponse(problem.body(), problem.status, problem.headers, _PROBLEM)


def _tell_errors(app: FastAPI) -> None:
    """Every error as RFC 9457 has it."""

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiProblem)  # noqa: S101
        return _answer(error)

    async def malformed(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = [{"loc": _place(each["loc"]), "message": str(each["msg"])} for each in error.errors()]
        unreadable = any(each["type"] == "json_invalid" for each in error.errors())
        detail = "; ".join(f"{each['loc']}: {each['message']}" for each in found[:3])
        status, code = (400, "no_json") if unreadable else (422, "invalid_request")
        return _answer(ApiProblem(status, code, detail, errors=found))

    async def other(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = str(error.detail).lower().replace(" ", "_")
        return _answer(ApiProblem(error.status_code, code, str(error.detail), headers=dict(error.headers or {})))

    async def no_database(_request: Request, error: Exception) -> Response:
        logger().error("the database does not answer", error=type(error).__name__)
        return _answer(unavailable("the database does not answer", "no_database"))

    async def no_space(_request: Request, error: Exception) -> Response:
        logger().error("the store does not take a file", error=str(error))
        return _answer(ApiProblem(507, "no_space", "the server cannot keep the file now"))

    app.add_exception_handler(ApiProblem, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, other)
    app.add_exception_handler(sa.exc.SQLAlchemyError, no_database)
    app.add_exception_handler(OutputError, no_space)


def _place(loc: Any) -> str:
    """Where in the request, as `options.steps`."""
    places = [str(part) for part in loc]
    return ".".join(places[1:] if places[:1] == ["body"] else places) or "body"
