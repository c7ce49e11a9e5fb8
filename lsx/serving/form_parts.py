"""The parts of a multipart/form-data body, one after another, none of them ever whole in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from lsx.serving.problems import ApiProblem, too_large

__all__ = ["FormPart", "form_parts", "is_form"]

_MOST_HEADERS = 8192  # bytes of a part's


def is_form(content_type: str) -> bool:
    """Whether a request's body has parts."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


@dataclass(frozen=True, slots=True, eq=False)
class FormPart:
    """A part whose body is still to be read, before the next part is asked for."""

    name: str
    filename: str
    media_type: str
    body: AsyncIterator[bytes]

    async def read(self, most: int) -> bytes:
        """All of it. Raises ApiProblem for more than `most` bytes."""
        content = b""
        async for piece in self.body:
            content += piece
            if len(content) > most:
                raise too_large(f"{self.name} has more than {most} bytes")
        return content


async def form_parts(stream: AsyncIterator[bytes], content_type: str) -> AsyncIterator[FormPart]:
    """The parts of a body as it comes. What is left of a part's body is left out. Raises ApiProblem."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise _malformed("the Content-Type has no boundary")
    events = _Events(stream, boundary)
    while (event := await events.next()) is not None:
        if event[0] == "begin":
            headers = event[1]
            _, shown = parse_options_header(headers.get(b"content-disposition", b""))
            body = events.body()
            yield FormPart(
                name=shown.get(b"name", b"").decode("utf-8", "replace"),
                filename=shown.get(b"filename", b"").decode("utf-8", "replace"),
                media_type=headers.get(b"content-type", b"application/octet-stream").decode("latin-1"),
                body=body,
            )
            async for _ in body:
                pass


def _malformed(detail: str) -> ApiProblem:
    return ApiProblem(400, "no_form", detail)


class _Events:
    """What a body has: ("begin", headers), ("data", bytes), ("end", None), of each part."""

    def __init__(self, stream: AsyncIterator[bytes], boundary: bytes) -> None:
        self._stream, self._events = stream, deque[tuple[str, Any]]()
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begun,
                "on_header_field": lambda data, start, end: self._heard("_name", data[start:end]),
                "on_header_value": lambda data, start, end: self._heard("_value", data[start:end]),
                "on_header_end": self._header_ended,
                "on_headers_finished": lambda: self._events.append(("begin", dict(self._headers))),
                "on_part_data": lambda data, start, end: self._events.append(("data", data[start:end])),
                "on_part_end": lambda: self._events.append(("end", None)),
                "on_end": self._all_ended,
            },
        )

    def _begun(self) -> None:
        self._headers = {}

    def _heard(self, where: str, piece: bytes) -> None:
        setattr(self, where, getattr(self, where) + piece)
        if len(self._name) + len(self._value) + sum(map(len, self._headers.values())) > _MOST_HEADERS:
            raise _malformed("a part's headers are too long")

    def _header_ended(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _all_ended(self) -> None:
        self._ended = True

    async def next(self) -> tuple[str, Any] | None:
        """The next one; None at the end. Raises ApiProblem."""
        while not self._events:
            piece = await anext(self._stream, None)
            if piece is None:
                if not self._ended:
                    raise _malformed("the form ends in the midst of a part")
                return None
            try:
                self._parser.write(piece)
            except MultipartParseError as error:
                raise _malformed(f"not a form: {error}") from error
        return self._events.popleft()

    async def body(self) -> AsyncIterator[bytes]:
        """The data of the part that has begun."""
        while (event := await self.next()) is not None and event[0] == "data":
            yield event[1]
