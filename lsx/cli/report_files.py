"""The files of a command's report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lsx.cli.console import out
from lsx.core.atomic_files import write_whole
from lsx.errors import OutputError

__all__ = ["ReportFiles"]


class ReportFiles:
    """report.json and report.html in the folder `output`, made at once so that a bad one is refused before any work.

    Without a folder nothing is written. Raises OutputError.
    """

    def __init__(self, output: Path | None) -> None:
        self._output = output
        if output is not None:
            try:
                output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{output}: cannot be created: {error.strerror}") from error

    def write(self, json: str, html: Callable[[], str]) -> None:
        """Replace both; `html` is called where there is a folder."""
        if self._output is None:
            return
        try:
            write_whole(self._output / "report.json", json.encode())
            write_whole(self._output / "report.html", html().encode())
        except OSError as error:
            raise OutputError(f"{self._output}: cannot be written: {error.strerror}") from error

    def say(self) -> None:
        """Tell where they are."""
        if self._output is not None:
            out.print(f"report: {self._output / 'report.html'}, {self._output / 'report.json'}")
