"""Runs that are killed: what they leave is removed by the next run into the same target, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsx.errors import OutputError
from lsx.media.colours import ColourTags
from lsx.media.video_reader import VideoReader
from lsx.media.video_writer import VideoWriter

WRITER = """
import os, signal, sys
import numpy as np
from pathlib import Path
from lsx.media.video_writer import VideoWriter
from lsx.media.colours import ColourTags
with VideoWriter(Path(sys.argv[1]), (64, 48), colours=ColourTags()) as writer:
    for index in range(200):
        if index == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        writer.write(np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8))
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, frames: int = 3) -> None:
    with VideoWriter(path, (64, 48), colours=ColourTags()) as writer:
        for index in range(frames):
            writer.write(np.full((48, 64, 3), index, np.uint8))


def test_killed_at_20_points(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    for frame in [*range(5), *range(5, 200, 13)]:
        done = subprocess.run([sys.executable, "-c", WRITER, str(target), str(frame)], check=False)
        assert done.returncode == -9
        assert any(name.startswith(".out.") for name in _names(tmp_path))
    assert len(_names(tmp_path)) == 1  # each removed the one before
    _write(target)
    assert _names(tmp_path) == ["out.mp4"]
    assert VideoReader(target).count == 3


def test_only_leftovers_of_this_target_go(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = ["other.mp4", ".out.notes.mp4", ".out.12.mkv", ".another.12.mp4", f".out.{os.getpid()}.mp4"]
    for name in [*kept, f".out.{ended.pid}.mp4"]:
        (tmp_path / name).write_bytes(b"x")
    _write(target)
    assert _names(tmp_path) == sorted([*kept, "out.mp4"])


def test_a_file_that_is_being_written_stays(tmp_path: Path) -> None:
    """Also by this very process: two runs into one target do not disturb each other, and the last one counts."""
    target = tmp_path / "out.mp4"
    with VideoWriter(target, (64, 48), colours=ColourTags()) as first:
        first.write(np.zeros((48, 64, 3), np.uint8))
        _write(target, 7)
        assert len(_names(tmp_path)) == 2
        first.write(np.zeros((48, 64, 3), np.uint8))
    assert _names(tmp_path) == ["out.mp4"]
    assert VideoReader(target).count == 2


def test_a_writer_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OutputError("no such encoder")

    monkeypatch.setattr("lsx.media.video_writer.VideoTrack", fail)
    with pytest.raises(OutputError):
        VideoWriter(tmp_path / "out.mp4", (64, 48), colours=ColourTags())
    assert _names(tmp_path) == []
