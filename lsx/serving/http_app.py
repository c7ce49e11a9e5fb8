"""The HTTP side: an application that takes jobs in and tells of them, and runs none. Neither engines nor CUDA."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import obstore
import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import lsx
from lsx.errors import OutputError
from lsx.serving import asset_routes, avatar_routes, generate_routes, job_routes, site_routes
from lsx.serving.api_keys import KeyBook
from lsx.serving.counted import Counted, route_of
from lsx.serving.database import database_url, engine_for
from lsx.serving.downloads import Downloads
from lsx.serving.http_auth import Gate
from lsx.serving.job_book import JobBook
from lsx.serving.job_events import JobEvents
from lsx.serving.live import routes as live_routes
from lsx.serving.logs import logger
from lsx.serving.problems import ApiProblem, answer, unavailable
from lsx.serving.schemas import JobRequest
from lsx.serving.serve_metrics import ServeMetrics
from lsx.serving.settings import ServeSettings
from lsx.serving.store import Store, store_at
from lsx.serving.uploads import Uploads

__all__ = ["create_app"]

_CONNECTIONS = 20


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
    state.live = live_routes.LiveCount(settings.max_live)
    for room in (job_routes, asset_routes, avatar_routes, generate_routes, live_routes, site_routes):
        app.include_router(room.router)
    app.add_middleware(Counted, metrics=state.metrics, media=_origin(store) if settings.redirect_outputs else None)
    _tell_errors(app)
    _describe_jobs(app)
    return app


def _origin(store: Store) -> str | None:
    """Where an object store gives its files; None where this server gives them."""
    try:
        signed = store.signed("none", 1)
    except obstore.exceptions.BaseError as error:
        logger().warning("the store gives no addresses; the page plays no results", error=str(error).split("\n")[0])
        return None
    return None if signed is None else "{0.scheme}://{0.netloc}".format(urlsplit(signed))


def _describe_jobs(app: FastAPI) -> None:
    """Have the schema of a job's request among the others: its route reads the body itself, which may be a form."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        own = JobRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        schema["components"]["schemas"] |= own.pop("$defs", {}) | {"JobRequest": own}
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _tell_errors(app: FastAPI) -> None:
    """Every error as RFC 9457 has it."""

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiProblem)  # noqa: S101
        return answer(error)

    async def malformed(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = [{"loc": _place(each["loc"]), "message": str(each["msg"])} for each in error.errors()]
        unreadable = any(each["type"] == "json_invalid" for each in error.errors())
        detail = "; ".join(f"{each['loc']}: {each['message']}" for each in found[:3])
        status, code = (400, "no_json") if unreadable else (422, "invalid_request")
        return answer(ApiProblem(status, code, detail, errors=found))

    async def other(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = str(error.detail).lower().replace(" ", "_")
        return answer(ApiProblem(error.status_code, code, str(error.detail), headers=dict(error.headers or {})))

    async def no_database(_request: Request, error: Exception) -> Response:
        logger().error("the database does not answer", error=type(error).__name__)
        return answer(unavailable("the database does not answer", "no_database"))

    async def no_space(_request: Request, error: Exception) -> Response:
        logger().error("the store does not take a file", error=str(error))
        return answer(ApiProblem(507, "no_space", "the server cannot keep the file now"))

    async def failed(request: Request, error: Exception) -> Response:
        logger().error("a request failed", method=request.method, route=route_of(request.scope), exc_info=error)
        return answer(ApiProblem(500, "internal_error", "the server failed; its log says more"))

    app.add_exception_handler(ApiProblem, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, other)
    app.add_exception_handler(sa.exc.SQLAlchemyError, no_database)
    app.add_exception_handler(OutputError, no_space)
    app.add_exception_handler(Exception, failed)


def _place(loc: Any) -> str:
    """Where in the request, as `options.steps`."""
    places = [str(part) for part in loc]
    return ".".join(places[1:] if places[:1] == ["body"] else places) or "body"
