"""Finished sections of a job's run, in the store, so that whoever has the job next goes on from them."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from lsx.errors import OutputError
from lsx.serving.logs import logger
from lsx.serving.store import Store

__all__ = ["KeptSections", "sections_key"]


def sections_key(job: str) -> str:
    """Where a job's sections are in a store."""
    return f"sections/{job}"


class KeptSections:
    """A folder of this process's own with a job's sections. Use as a context manager round the run.

    What the run finishes there is copied to the store by a thread of its own: the run does not wait for it, nor ends
    where that fails. The folder is nobody else's, so that a worker that wakes up late is in nobody's way.
    """

    def __init__(self, store: Store, job: str, folder: Path) -> None:
        self.folder = folder / "sections"
        self._store, self._job, self._scratch = store, job, folder / "stored"
        self._pool = ThreadPoolExecutor(1, "lsx-sections")
        self._pushing: Future[None] | None = None
        self._pushed: set[Path] = set()

    def push(self) -> None:
        """Begin to store what was finished since, unless that is still going on."""
        if self._pushing is None or self._pushing.done():
            self._pushing = self._pool.submit(self._push)

    def _push(self) -> None:
        finished = sorted({*self.folder.glob("*/*.npz")} - self._pushed)
        for state in finished:
            videos = [path for path in state.parent.glob(f"{state.stem}.*") if path != state]
            if state.stem.isdigit() and not videos:
                continue  # it is not finished
            try:
                for path in (state, *videos):
                    self._store.put(f"{sections_key(self._job)}/{path.parent.name}/{path.name}", self._copied(path))
            except (OutputError, OSError) as error:
                logger(job=self._job).warning("a section was not stored", error=str(error))
                return
            self._pushed.add(state)

    def _copied(self, path: Path) -> Path:
        """The same file under another name, for the store to take."""
        copy = self._scratch / f"{path.parent.name}-{path.name}"
        _linked(path, copy)
        return copy

    def __enter__(self) -> KeptSections:
        """Fetch what the store has."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        prefix = sections_key(self._job)
        for found in self._store.list(prefix):
            target = self.folder / Path(found.key).relative_to(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            _linked(self._store.fetch(found.key, self._scratch), target)
            if target.suffix == ".npz":
                self._pushed.add(target)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _linked(path: Path, target: Path) -> None:
    """`target` with the content of `path`, which on one disk takes no room."""
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
