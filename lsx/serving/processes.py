"""Processes of `lsx serve`: started with their settings on standard input, one of each name on a machine."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lsx.serving.settings import ServeSettings

__all__ = ["REPLACED", "given_settings", "locked", "started"]

REPLACED = "LSX_REPLACED_PROCESS"
"""Variable with the number of the process that a new worker tells to drain when it is ready."""


def started(
    module: str, name: str, settings: ServeSettings, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE NAME` with `settings`, and `environment` beside this process's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DBOS_", "LSX_SERVE_"))}
    command = [sys.executable, "-m", module, name]
    child = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, env=kept | dict(environment or {}), start_new_session=True
    )
    assert child.stdin is not None  # noqa: S101
    try:
        child.stdin.write(json.dumps(settings.model_dump(mode="json")).encode())
        child.stdin.close()
    except BrokenPipeError:
        pass  # it has ended already, which its exit code says
    return child


def given_settings() -> ServeSettings:
    """Those that `started` wrote."""
    return ServeSettings.model_validate(json.load(sys.stdin))


@contextmanager
def locked(folder: Path, name: str) -> Iterator[bool]:
    """Whether this process has the name for itself among all that share the folder; until the block ends.

    The system frees it when the process is gone, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name.replace(':', '-')}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
