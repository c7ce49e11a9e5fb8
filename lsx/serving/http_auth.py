"""Whose a request is: a key in a header or a browser's cookie; on loopback without keys everybody's."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from lsx.serving.api_keys import ApiKey, KeyBook, Scope
from lsx.serving.gpu_queue import Owner
from lsx.serving.problems import ApiProblem, queue_full
from lsx.serving.settings import ServeSettings, is_loopback

__all__ = ["COOKIE", "Gate", "needs"]

COOKIE = "lsx_key"
_EVERYBODY = "local"
_HARMLESS = frozenset({"GET", "HEAD"})


class Gate:
    """Lets requests in. Used from any thread."""

    def __init__(self, keys: KeyBook, settings: ServeSettings) -> None:
        self._keys, self._settings = keys, settings
        self._lock = threading.Lock()
        self._asked: dict[str, deque[float]] = {}

    def asks_nobody(self) -> bool:
        """Whether keys are known well enough to answer at once, without the database."""
        return self._keys.is_fresh()

    def is_open(self) -> bool:
        """Whether no key is needed: nobody else reaches this address, and none was made."""
        return self._settings.is_loopback and not self._keys.any()

    def key_of(self, request: HTTPConnection) -> ApiKey | None:
        """The key that a request has; None where none is needed. Raises ApiProblem."""
        text = _given(request)
        if text is None and (text := request.cookies.get(COOKIE)) is not None:
            _check_same_origin(request)
        if text is None and self.is_open():
            _check_own_page(request)
            return None
        key = None if text is None else self._keys.find(text)
        if key is None:
            detail = "the key is none of this server's" if text else "give a key: Authorization: Bearer lsx_..."
            raise ApiProblem(401, "key_needed", detail, headers={"WWW-Authenticate": "Bearer"})
        return key

    def owner(self, request: HTTPConnection, scope: Scope) -> Owner:
        """Whose a request is that needs `scope`. Raises ApiProblem."""
        key = self.key_of(request)
        most = self._settings.max_queued_per_key
        if key is None:
            return Owner(_EVERYBODY, most)
        if not key.may(scope):
            raise ApiProblem(403, "scope_missing", f"the key lacks the scope {scope}")
        self._check_rate(key.id)
        return Owner(key.id, key.most_queued or most)

    def _check_rate(self, number: str) -> None:
        """Raise ApiProblem for more requests in the last minute than are allowed."""
        now, most = time.monotonic(), self._settings.requests_a_minute
        with self._lock:
            asked = self._asked.setdefault(number, deque())
            while asked and asked[0] < now - 60:
                asked.popleft()
            if len(asked) >= most:
                raise queue_full(f"at most {most} requests a minute", "rate_limited", int(asked[0] + 60 - now) + 1)
            asked.append(now)


def _check_own_page(request: HTTPConnection) -> None:
    """Refuse what another site's page asks of a server without keys, under whatever name of this machine.

    Raises ApiProblem.
    """
    if not is_loopback(request.url.hostname or "") or not _is_own_origin(request):
        raise ApiProblem(403, "other_site", "without keys this server answers its own page and programs alone")


def _check_same_origin(request: HTTPConnection) -> None:
    """Refuse what another page changes with the cookie of this one. Raises ApiProblem."""
    site = request.headers.get("sec-fetch-site")  # the browser's own word; not told over plain HTTP
    same = _is_own_origin(request) if site is None else site in ("same-origin", "none")
    if request.scope.get("method") not in _HARMLESS and not same:  # a WebSocket has none
        raise ApiProblem(403, "other_site", "a browser's key is for this server's own page")


def _is_own_origin(request: HTTPConnection) -> bool:
    """Whether no other page asks, as far as the browser says."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.url.netloc


def _given(request: HTTPConnection) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    return request.headers.get("x-api-key") or None


def needs(scope: Scope) -> Callable[[Request], Awaitable[Owner]]:
    """The owner of a request that needs `scope`, as a dependency of a route."""

    async def owner(request: Request) -> Owner:
        gate: Gate = request.app.state.gate
        if gate.asks_nobody():
            return gate.owner(request, scope)
        return await run_in_threadpool(gate.owner, request, scope)

    return owner
