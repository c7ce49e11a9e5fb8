"""Processes of `lsx serve`: started with their settings on standard input, one of each name, none without parent."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lsx.errors import UsageError
from lsx.serving.logs import logger
from lsx.serving.settings import ServeSettings

__all__ = ["REPLACED", "given_settings", "locked", "named", "ready_mark", "started", "supervising", "wait_for_end"]

REPLACED = "LSX_REPLACED_PROCESS"
"""Variable with the number of the process that a new worker tells to drain when it is ready."""


def started(
    module: str, name: str, settings: ServeSettings, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE NAME` with `settings`, and `environment` beside this process's own.

    The child's standard input stays open: its end tells the child that this process is gone.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DBOS_", "LSX_SERVE_"))}
    command = [sys.executable, "-m", module, name]
    child = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, env=kept | dict(environment or {}), start_new_session=True
    )
    assert child.stdin is not None  # noqa: S101
    try:
        child.stdin.write(json.dumps(settings.model_dump(mode="json")).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended already, which its exit code says
    return child


def given_settings() -> ServeSettings:
    """Those that `started` wrote. From now on this process gets SIGTERM when the one that started it is gone."""
    settings = ServeSettings.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return settings


def _end_with_parent() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[bool]:
    """Whether this process has the name for itself among all that share the folder; until the block ends."""
    with _lock_file(folder, name) as file:
        yield _is_free(file)


@contextmanager
def supervising(settings: ServeSettings) -> Iterator[None]:
    """Be the only supervisor of the data folder until the block ends. Raises UsageError where there is one."""
    with locked(settings.data / "locks", "supervisor") as free:
        if not free:
            raise UsageError(f"{settings.data}: another lsx serve works there; end it, or give another --data")
        yield


@contextmanager
def named(settings: ServeSettings, name: str) -> Iterator[None]:
    """Have the name of a process for itself until the block ends; wait for a process of a killed supervisor.

    Two executors of one name would take each other's jobs.
    """
    with _lock_file(settings.data / "locks", name) as file:
        if not _is_free(file):
            logger().warning("waits for the process that had this name before")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ready_mark(settings: ServeSettings, name: str) -> Path:
    """A file that is there while the worker of that name takes jobs: what a probe looks for that runs no Python."""
    folder = settings.data / "ready"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name.replace(":", "-")


def wait_for_end(settings: ServeSettings, name: str) -> None:
    """Return when no process has the name: that of a killed supervisor ends by itself."""
    with _lock_file(settings.data / "locks", name) as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def _lock_file(folder: Path, name: str) -> IO[str]:
    """A file whose lock the system frees when the process that has it is gone, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{name.replace(':', '-')}.lock").open("w")


def _is_free(file: IO[str]) -> bool:
    """Whether nobody had the lock; then this process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
