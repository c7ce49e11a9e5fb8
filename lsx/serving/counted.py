"""What every request goes through: it is counted, its JSON is bounded, and browsers get the headers that they mind."""

from __future__ import annotations

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsx.serving.avatar_routes import is_json
from lsx.serving.form_parts import is_form
from lsx.serving.problems import ApiProblem, answer
from lsx.serving.serve_metrics import ServeMetrics
from lsx.serving.upload_labels import length_of

__all__ = ["Counted", "route_of"]

_MOST_JSON = 1 << 20
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:{media}; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Counted:
    """An application round another."""

    def __init__(self, app: ASGIApp, metrics: ServeMetrics, media: str | None = None) -> None:
        """media : another origin whose videos the page may play, where results come from there."""
        self._app, self._metrics = app, metrics
        self._policy = _POLICY.format(media=f" {media}" if media else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Security-Policy"] = self._policy
            await send(message)

        try:
            await (_too_large if _is_too_large(scope) else self._app)(scope, receive, sent)
        finally:
            route = route_of(scope)
            self._metrics.requests.labels(scope["method"], route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


def route_of(scope: Scope) -> str:
    """The path's pattern, for metrics and logs: no id and no name."""
    return str(getattr(scope.get("route"), "path", "none"))


def _is_too_large(scope: Scope) -> bool:
    """Whether a body is larger than JSON may be, or may be so: it does not say."""
    headers = Headers(scope=scope)
    kind, path = headers.get("content-type", ""), scope["path"]
    if path == "/v1/assets" or (path == "/v1/avatars" and not is_json(kind)) or (path == "/v1/jobs" and is_form(kind)):
        return False
    length = length_of(headers.get("content-length", "0"))
    return "transfer-encoding" in headers or length is None or length > _MOST_JSON


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    problem = ApiProblem(413, "too_large", f"at most {_MOST_JSON} bytes are taken, with a Content-Length")
    await answer(problem)(scope, receive, send)
