"""The files that a command's report is written to: a folder with a page, or one file of JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lsx.cli.console import err, mode, out
from lsx.core.atomic_files import check_folder, write_whole
from lsx.errors import OutputError

__all__ = ["ReportFiles", "check_report", "make_folder", "write_report"]


def check_report(path: Path | None, others: Iterable[Path | None]) -> None:
    """Refuse a file that cannot be written, or that is one of `others`, before any work. Raises OutputError."""
    if path is None:
        return
    if any(other is not None and other.absolute() == path.absolute() for other in others):
        raise OutputError(f"{path}: it would replace another file of this command; give it another name")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    check_folder(path.parent)


def make_folder(output: Path) -> None:
    """Make the folder `output` where it is not there. Raises OutputError, also for one that cannot be written into."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be created: {error.strerror}") from error
    check_folder(output)


def write_report(path: Path, json: str) -> None:
    """Write the report whole, and tell where it is, on standard error. Raises OutputError."""
    try:
        write_whole(path, json.encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    if not (mode.object or mode.quiet):
        err.print(f"report: {path}")


class ReportFiles:
    """report.json and report.html in the folder `output`, made at once so that a bad one is refused before any work.

    Without a folder nothing is written. Raises OutputError.
    """

    def __init__(self, output: Path | None) -> None:
        self._output = output
        if output is not None:
            make_folder(output)

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
