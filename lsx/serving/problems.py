"""What a request is refused with: an error that HTTP tells, with a code that programs can read."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

__all__ = [
    "ApiProblem",
    "answer",
    "conflict",
    "gone",
    "invalid",
    "not_found",
    "queue_full",
    "too_large",
    "unavailable",
    "unsupported_media",
]

_TITLES = {
    400: "Bad request",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Not a video or sound",
    422: "Invalid",
    429: "Too many",
    500: "Failed",
    503: "Not available",
    507: "No space",
}


class ApiProblem(Exception):
    """An answer other than what was asked for."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers = errors or [], headers or {}

    def body(self) -> dict[str, Any]:
        """The answer, as RFC 9457 has it."""
        title = _TITLES.get(self.status, "Error")
        content = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return content | {"code": self.code, "errors": self.errors}


def answer(problem: ApiProblem) -> JSONResponse:
    """The response that tells of it."""
    return JSONResponse(problem.body(), problem.status, problem.headers, "application/problem+json")


def not_found(what: str) -> ApiProblem:
    """Also for what is another owner's."""
    return ApiProblem(404, "not_found", f"there is no such {what}")


def conflict(code: str, detail: str) -> ApiProblem:
    """What the job's state does not allow."""
    return ApiProblem(409, code, detail)


def gone(detail: str) -> ApiProblem:
    """What there was."""
    return ApiProblem(410, "expired", detail)


def invalid(detail: str, field: str | None = None, code: str = "invalid_request") -> ApiProblem:
    """A request whose form is right, and whose content is not."""
    errors = [] if field is None else [{"loc": field, "message": detail}]
    return ApiProblem(422, code, detail, errors=errors)


def too_large(detail: str) -> ApiProblem:
    """More bytes than are taken."""
    return ApiProblem(413, "too_large", detail)


def unsupported_media(detail: str) -> ApiProblem:
    """No video or sound that can be read."""
    return ApiProblem(415, "unreadable_media", detail)


def queue_full(detail: str, code: str, seconds: int) -> ApiProblem:
    """Try again later."""
    return ApiProblem(429, code, detail, headers={"Retry-After": str(seconds)})


def unavailable(detail: str, code: str = "unavailable") -> ApiProblem:
    """It may work again soon."""
    return ApiProblem(503, code, detail, headers={"Retry-After": "5"})
