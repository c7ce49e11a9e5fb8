"""Where an output goes: refused before work, whole or not there at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from lsx.errors import OutputError, UsageError
from lsx.media.targets import FileTarget, StreamTarget, as_output, check_target, container_of, target_of


@pytest.mark.parametrize(
    ("name", "container"), [("a.mp4", "mp4"), ("A.MOV", "mov"), ("a.mkv", "matroska"), ("-", "mp4")]
)
def test_containers(name: str, container: str) -> None:
    assert container_of(Path(name)) == container


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.mp4"):
        container_of(Path("a.avi"))
    with pytest.raises(OutputError, match="no such folder"):
        check_target(tmp_path / "none" / "a.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_target(tmp_path / "folder.mp4")
    clip = tmp_path / "clip.mp4"
    clip.touch()
    with pytest.raises(OutputError, match="is an input of this run"):
        check_target(clip, (clip,))


def test_a_file_appears_when_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for keep in (False, True):
        target = target_of(path)
        assert isinstance(target, FileTarget)
        Path(target.opened).write_bytes(b"video")
        assert not path.exists()
        if keep:
            target.commit()
        target.discard()
        assert path.exists() is keep
        assert [p.name for p in tmp_path.iterdir()] == (["a.mp4"] if keep else [])


def test_leftovers_go_and_living_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    living = FileTarget(path)
    dead = tmp_path / f".a.{os.getpid()}-deadbeef.mp4"
    dead.touch()
    other = FileTarget(path)
    assert not dead.exists()
    assert Path(living.opened).exists()
    for target in (living, other):
        target.discard()


def test_an_open_file_stays_open() -> None:
    file = io.BytesIO()
    target = target_of(as_output(file))
    assert isinstance(target, StreamTarget)
    assert "frag_keyframe" in target.muxer_options["movflags"]
    assert not target.opened.seekable()
    target.opened.write(b"x")
    target.commit()
    target.discard()
    assert file.getvalue() == b"x"


def test_an_output_file_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.touch()
    with path.open("rb") as file, pytest.raises(UsageError, match="the output file is not open for writing"):
        as_output(file)
    with pytest.raises(UsageError, match="the output file is closed"):
        as_output(file)


@pytest.mark.parametrize(("given", "said"), [(7, "output is of type int"), (io.StringIO(), "binary mode")])
def test_what_is_no_output(given: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        as_output(given)
