"""A download on its way to a file: whole in the end or not there, and gone on with where it broke."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lsx.core.atomic_files import check_folder
from lsx.errors import OutputError

__all__ = ["Saving"]


class Saving:
    """The file beside `output` that becomes it. Raises OutputError where it cannot be written."""

    def __init__(self, output: Path) -> None:
        self._output = output.absolute()
        check_folder(self._output.parent)
        self._beside = self._output.with_name(f".{self._output.name}-{os.getpid()}")
        self._file: BinaryIO | None = None
        self._done = 0

    def __enter__(self) -> Self:
        try:
            self._file = self._beside.open("wb")
        except OSError as error:
            raise self._error(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
        self._beside.unlink(missing_ok=True)

    def headers(self) -> dict[str, str]:
        """Of the request for what is still missing: what a job made never changes."""
        return {"Range": f"bytes={self._done}-"} if self._done else {}

    def begin(self, status: int) -> None:
        """Take an answer: a part (206) goes on where the last one broke, anything else begins anew."""
        file = self._opened()
        if status != 206:
            self._done = 0
        file.truncate(self._done)
        file.seek(self._done)

    def write(self, part: bytes) -> None:
        """Append bytes."""
        try:
            self._opened().write(part)
        except OSError as error:
            raise self._error(error) from error
        self._done += len(part)

    def finished(self) -> Path:
        """Put the file in place; its path."""
        try:
            self._opened().close()
            self._beside.replace(self._output)
        except OSError as error:
            raise self._error(error) from error
        return self._output

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("not entered")
        return self._file

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"{self._output}: cannot be written: {error.strerror or error}")
