"""Progress: a bar on a terminal, plain lines where it is piped, JSON lines under --json, nothing under --quiet."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lsx.cli.console import err, mode

__all__ = ["Task", "task"]

_SECONDS_BETWEEN_LINES = 10.0


class Task(Protocol):
    """Work under way."""

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        """Tell where it is. label : in words; done of total : for the bar; note : what stands beside it."""


class _Bar:
    def __init__(self, bar: Progress, number: Any) -> None:
        self._bar, self._number = bar, number

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        self._bar.update(self._number, description=escape(label), completed=done or 0, total=total, note=escape(note))


class _Lines:
    """A line for every stage, and one now and then within it."""

    def __init__(self) -> None:
        self._label, self._last = "", 0.0

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        now = time.monotonic()
        if label == self._label and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._label, self._last = label, now
        share = f" {100 * done / total:.0f} %" if done is not None and total else ""
        err.print(escape(f"{label}{share}{f', {note}' if note else ''}"))


class _Json:
    def __init__(self, command: str) -> None:
        self._command = command

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        line = {"progress": self._command, "what": label, "done": done, "total": total, "note": note or None}
        print(json.dumps({k: v for k, v in line.items() if v is not None}), file=sys.stderr, flush=True)


class _Silent:
    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        pass


@contextmanager
def task(command: str) -> Iterator[Task]:
    """A task of `command`, shown until the block ends: a bar is gone then, and nothing stale stays before an error."""
    if mode.json:
        yield _Json(command)
    elif mode.quiet:
        yield _Silent()
    elif not err.is_terminal:
        yield _Lines()
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=err, transient=True) as bar:
            yield _Bar(bar, bar.add_task(command, total=None, note=""))
