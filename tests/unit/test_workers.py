"""Work in several processes: errors end it, a process that dies does not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lsx.errors import MediaError
from lsx.training.workers import DIED, in_processes


def _work_or_die(item: tuple[str, str]) -> None:
    """Of a worker: dies at `die`, dies once at `stumble`, fails at `fail`, writes its name otherwise."""
    folder, name = Path(item[0]), item[1]
    if name == "fail":
        raise MediaError("it fails")
    if name == "die" or (name == "stumble" and not (folder / "stumbled").exists()):
        (folder / "stumbled").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / name).touch()


def test_a_process_that_dies_stops_nothing(tmp_path: Path) -> None:
    items = [(str(tmp_path), name) for name in ("a", "stumble", "die", "b", "c")]
    done = {item[1]: reason for item, reason in in_processes(_work_or_die, items, 2)}
    assert done == {"a": None, "b": None, "c": None, "stumble": None, "die": DIED}
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c", "stumble", "stumbled"}
    with pytest.raises(MediaError, match="it fails"):
        list(in_processes(_work_or_die, [(str(tmp_path), "fail")], 1))
