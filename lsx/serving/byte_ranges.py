"""Files of the store over HTTP: whole, or the range that a player asks for."""

from __future__ import annotations

import re
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from lsx.serving.problems import ApiProblem, gone
from lsx.serving.store import Store

__all__ = ["ranged"]

_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_DIGITS = 18  # no file has a byte beyond, and Python reads no number of thousands of them


def ranged(request: Request, store: Store, key: str, media_type: str, name: str, *, attached: bool) -> Response:
    """A file, under a name of the user's; `attached` makes browsers save it. Raises ApiProblem."""
    size = store.size(key)
    if size is None:
        raise gone("the file was removed")
    bounds = _bounds(request.headers.get("range"), size)
    start, stop = bounds or (0, size)
    disposition = "attachment" if attached else "inline"
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(stop - start),
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }
    if bounds is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    content = store.read(key, start, stop)
    return StreamingResponse(content, 206 if bounds is not None else 200, headers, media_type)


def _bounds(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None where all is wanted. Raises ApiProblem beyond the end."""
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or not (found[1] or found[2]):
        return None  # several ranges, and what is none, get the whole
    if not found[1]:
        start, stop = max(size - _byte(found[2]), 0), size
    else:
        start, stop = _byte(found[1]), min(_byte(found[2]) + 1, size) if found[2] else size
    if start >= stop:
        headers = {"Content-Range": f"bytes */{size}"}
        raise ApiProblem(416, "range_beyond_end", f"the file has {size} bytes", headers=headers)
    return start, stop


def _byte(digits: str) -> int:
    return int(digits) if len(digits) <= _DIGITS else 10**_DIGITS
