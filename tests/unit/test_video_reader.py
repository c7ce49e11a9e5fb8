"""Video in: frames on the grid, forwards, backwards, and what deep colours become."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, write_clip
from lsx.errors import MediaError
from lsx.media import video_reader
from lsx.media.colours import ColourTags
from lsx.media.video_reader import VideoReader, ping_pong


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", portrait_frames(10, 160, 120), crf=1)


def test_it_can_start_anywhere(clip: Path) -> None:
    reader = VideoReader(clip)
    assert (reader.count, reader.width, reader.height, reader.rotation) == (10, 160, 120, 0)
    every = list(reader.frames())
    assert all(np.array_equal(a, b) for a, b in zip(reader.frames(4, 7), every[4:7], strict=True))
    assert [index for index, _ in reader.ping_pong(23)] == [ping_pong(i, 10) for i in range(23)]
    assert list(reader.frames(10)) == []


@pytest.mark.parametrize(
    "indices",
    [[9, 8, 7], [5], [3, 3, 3], [0, 4, 4, 9, 2, 2, 1, 0, 0], [7, 8, 9, 0, 1, 0, 1], [9, 9, 0, 9, 5, 6, 6, 1], []],
)
def test_any_frames_in_any_order(clip: Path, indices: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_reader, "_REVERSE_BYTES", 1)  # blocks of eight
    reader = VideoReader(clip)
    every = list(reader.frames())
    made = list(reader.at(np.array(indices, np.int64)))
    assert [index for index, _ in made] == indices
    assert all(np.array_equal(frame, every[index]) for index, frame in made)
    assert len({id(frame) for _, frame in made}) == len(made)
    assert len({frame.ctypes.data for _, frame in made}) == len(made)  # each may be painted on


def test_other_rates_are_placed_by_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", portrait_frames(31, 160, 120), rate=Fraction(50), crf=1)
    reader = VideoReader(path)
    assert reader.count == 16  # 0.62 s
    assert len(list(reader.frames())) == 16


def test_tags() -> None:
    assert (ColourTags().matrix, ColourTags().levels) == (5, 1)
    assert (ColourTags(space=1, range=2).matrix, ColourTags(space=1, range=2).levels) == (1, 2)


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"")
    with pytest.raises(MediaError):
        VideoReader(tmp_path / "v.mp4")
