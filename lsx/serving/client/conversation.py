"""What both clients agree on: addresses, keys, which answers are waited for, and how a refusal is told."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from lsx.errors import ServerRefused, ServerUnreachable, UsageError
from lsx.serving.client.calls import Call, media_type
from lsx.serving.schemas import Job

__all__ = [
    "EVENT_SECONDS",
    "Patience",
    "address_of",
    "comes_again",
    "content_of",
    "headers_of",
    "job_of_line",
    "number_of",
    "refusal",
    "seconds_of",
    "unreachable",
]

DEFAULT_SERVER = "http://127.0.0.1:8000"
EVENT_SECONDS = 60.0
"""Without a line for so long a stream of events is dead: the server sends one every 15 s."""
_ANSWER_SECONDS = 60.0
_AGAIN = frozenset({429, 502, 503, 504})


class Patience:
    """Pauses between tries, longer each time, until `seconds` have gone."""

    def __init__(self, seconds: float) -> None:
        self._until, self._next = time.monotonic() + seconds, 0.25

    def pause(self, asked: float | None = None) -> float | None:
        """Seconds to wait before the next try; None where that is too late. asked : what the server wants at least."""
        pause, self._next = max(self._next, asked or 0.0), min(2 * self._next, 10.0)
        return pause if time.monotonic() + pause <= self._until else None


def address_of(server: str | None) -> str:
    """The address of `server`, of LSX_SERVER, or of a server on this machine. Raises UsageError."""
    address = (server or os.environ.get("LSX_SERVER") or DEFAULT_SERVER).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"server is {address!r}; give its address, as http://127.0.0.1:8000 (--server or LSX_SERVER)")
    return address


def headers_of(key: str | None) -> dict[str, str]:
    """The headers of every request: the key, of LSX_KEY where none is given. Raises UsageError."""
    given = key or os.environ.get("LSX_KEY")
    if given is None:
        return {}
    if not given.isascii() or not given.isprintable():
        raise UsageError("the key has signs that none of lsx serve has; give it as `lsx serve key create` printed it")
    return {"Authorization": f"Bearer {given}"}


def seconds_of(call: Call[Any]) -> float:
    """How long an answer may take."""
    return _ANSWER_SECONDS + call.seconds


@contextmanager
def content_of(call: Call[Any]) -> Iterator[dict[str, Any]]:
    """httpx's arguments for what a call sends but for a file of its own; a form's files are open until it is sent."""
    headers = dict(call.headers)
    if not call.form:
        json_type = {} if call.body is None else {"Content-Type": "application/json"}
        yield {"content": call.body, "headers": headers | json_type}
        return
    with ExitStack() as opened:
        files = {
            name: (path.name, opened.enter_context(path.open("rb")), media_type(path))
            for name, path in call.form.items()
        }
        yield {"files": files, "data": {"job": call.body}, "headers": headers}


def comes_again(status: int, headers: Mapping[str, str]) -> tuple[bool, float | None]:
    """Whether a request that was answered so is worth another try, and after how many seconds the server says."""
    asked = headers.get("retry-after", "")
    return status in _AGAIN, float(asked) if asked.isdecimal() else None


def refusal(status: int, body: bytes) -> ServerRefused:
    """The error that an answer tells of."""
    try:
        told = json.loads(body)
        detail, code = str(told["detail"]), str(told["code"])
        errors = [f"{e['loc']}: {e['message']}" for e in told.get("errors", ()) if e["message"] not in detail]
    except (ValueError, KeyError, TypeError):
        return ServerRefused(f"the server answers {status}, and not as lsx serve does", status=status, code="unknown")
    said = "; ".join([detail, *errors])
    if status == 401:
        said += ". Give a key (--key or LSX_KEY); the server's owner makes one with `lsx serve key create`"
    return ServerRefused(f"the server refuses ({status}, {code}): {said}", status=status, code=code)


def unreachable(server: str, error: Exception) -> ServerUnreachable:
    """The error of a server that gave no answer."""
    reason = str(error) or type(error).__name__
    return ServerUnreachable(f"{server}: no answer ({reason}). Is it running, and its address right?")


def number_of(what: Job | str) -> str:
    """A job's id. Raises UsageError for what could be none."""
    number = what if isinstance(what, str) else what.id
    if not number.replace("_", "").isalnum() or not number.isascii():
        raise UsageError(f"{number!r} is no id; `lsx jobs` lists them")
    return number


def job_of_line(line: str) -> Job | None:
    """The job that a line of a stream of events tells, if it does."""
    return Job.model_validate_json(line.removeprefix("data:")) if line.startswith("data:") else None
