"""Progress: a bar on a terminal, plain lines where it is piped, JSON lines under --json, nothing under --quiet."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TimeElapsedColumn
from rich.progress import Task as BarTask
from rich.table import Column, Table
from rich.text import Text

from lsx.cli.console import err, mode

__all__ = ["Task", "task"]

_SECONDS_BETWEEN_LINES = 10.0
_BAR_CELLS = (10, 40)
"""Cells of a bar at least and at most."""


class Task(Protocol):
    """Work under way."""

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        """Tell where it is. label : in words; done of total : for the bar; note : what stands beside it."""


class _Bar:
    def __init__(self, bar: Progress, number: Any) -> None:
        self._bar, self._number = bar, number

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        self._bar.update(self._number, description=label, completed=done or 0, total=total, note=note)


class _TerminalLine(ProgressColumn):
    """Label, bar, note and elapsed time on one line of the terminal.

    What does not fit goes: the elapsed time, a note's facts from the last to the first, the bar, the label's end. The
    time left, a fact that ends so, stays.
    """

    def render(self, task: BarTask) -> RenderableType:
        width = err.width - 1  # a terminal may break a line that fills it
        elapsed = TimeElapsedColumn().render(task)
        shortest_bar, longest_bar = _BAR_CELLS
        label, whole = Text(task.description), task.fields["note"]
        note = Text(_fitted_note(whole, width - cell_len(label.plain) - shortest_bar - 2))
        label.truncate(max(width - cell_len(note.plain) - 1, 1), overflow="ellipsis")
        note.truncate(max(width - cell_len(label.plain) - 1, 1), overflow="ellipsis")
        cells: list[RenderableType] = [text for text in (label, note) if text]
        room = width - cell_len(label.plain) - cell_len(note.plain) - len(cells)
        if note.plain == whole and room > shortest_bar + cell_len(elapsed.plain):
            cells.append(elapsed)
            room -= cell_len(elapsed.plain) + 1
        if room >= shortest_bar:
            cells.insert(1, BarColumn(min(room, longest_bar)).render(task))
        line = Table.grid(*(Column(no_wrap=True) for _ in cells), padding=(0, 1))
        line.add_row(*cells)
        return line


def _fitted_note(note: str, cells: int) -> str:
    """The facts of a note, which stand between commas, that fit into `cells`; at least one."""
    facts = note.split(", ")
    while len(facts) > 1 and cell_len(", ".join(facts)) > cells:
        least = next((fact for fact in reversed(facts) if not fact.endswith(" left")), facts[-1])
        facts.remove(least)
    return ", ".join(facts)


class _Lines:
    """A line for every stage, and one now and then within it."""

    def __init__(self) -> None:
        self._label, self._last = "", 0.0

    def update(self, label: str, done: float | None = None, total: float | None = None, note: str = "") -> None:
        now = time.monotonic()
        if label == self._label and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._label, self._last = label, now
        share = f"{100 * done / total:.0f} %" if done is not None and total else ""
        told = f", {note}" if note and note != share else ""
        err.print(escape(f"{label}{f' {share}' if share else ''}{told}"))


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
        with Progress(_TerminalLine(), console=err, transient=True) as bar:
            yield _Bar(bar, bar.add_task(command, total=None, note=""))
