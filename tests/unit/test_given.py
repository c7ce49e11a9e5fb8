"""Video and sound as callers have them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.errors import MediaError, UsageError
from lsx.faces.avatar import Avatar
from lsx.media.audio_reader import SoundReader, as_samples
from lsx.media.given import ArraySound, ArrayVideo, open_sound, open_video
from lsx.media.video_reader import VideoReader


def test_arrays_play_back_and_forth_as_copies() -> None:
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
    video = open_video(frames)
    assert isinstance(video, ArrayVideo)
    assert (video.width, video.height) == (6, 4)
    made = list(video.ping_pong(7))
    assert [index for index, _ in made] == [0, 1, 2, 2, 1, 0, 0]
    made[0][1][:] = 99
    assert not frames[0].any()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((2, 4, 4, 3)), r"frame 0 is float64\[4, 4, 3\]"),
        (np.zeros((2, 4, 4, 3), np.float32), r"frame 0 is float32\[4, 4, 3\]"),
        (np.zeros((2, 4, 4), np.uint8), r"the frames are uint8\[2, 4, 4\]"),
        (np.array(3), r"the frames are int64\[\]"),
        (["a", "b"], "frame 0 is of type str"),
        ([1, 2], "frame 0 is of type int"),
        ([[[1], [1, 2]]], "frame 0 is of type list"),
    ],
)
def test_wrong_frames(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}; give uint8"):
        open_video(wrong)


@pytest.mark.parametrize("none", [np.zeros((0, 4, 4, 3), np.uint8), []])
def test_no_frames(none: Any) -> None:
    with pytest.raises(MediaError, match="no frames were given"):
        open_video(none)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros(3200), r"float64\[3200\]"),
        (np.zeros((2, 3200), np.int16), r"int16\[2, 3200\]"),
        ([0.5] * 400, "of type list"),
        (["a"] * 400, "of type list"),
        ([[1], [1, 2]], "of type list"),
        ("s.wav", "of type str"),
        (object.__new__(SoundReader), "of type SoundReader"),
    ],
)
def test_wrong_samples(wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=rf"^audio samples are {said}; give .*, such as SoundReader\(PATH\)\.samples"):
        as_samples(wrong)


def test_sound_in_memory_is_heard_as_it_is_and_encoded_from_16_bits() -> None:
    given = (speech(0.2) / 32768).astype(np.float32)
    sound = open_sound(given)
    assert isinstance(sound, ArraySound)
    assert sound.samples() is given
    assert (sound.rate, sound.layout) == (16000, "mono")
    decoded = np.concatenate([frame.to_ndarray().reshape(-1) for frame in sound.frames("s16", 16000, 1024)])
    assert np.abs(decoded / 32768 - given[: len(decoded)]).max() < 1e-4
    with pytest.raises(MediaError, match="20 ms"):
        open_sound(np.zeros(10, np.int16))


def test_open_files_are_copied(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", portrait_frames(4))
    wav = write_wav(tmp_path / "s.wav", speech(0.1))
    with clip.open("rb") as file:
        video = open_video(file)
    assert isinstance(video, VideoReader)
    assert video.path != clip
    assert next(video.frames()).shape == (480, 640, 3)
    assert np.array_equal(open_sound(io.BytesIO(wav.read_bytes())).samples(), speech(0.1))
    kept = video.path
    del video
    assert not kept.exists()


@pytest.mark.parametrize("wrong", [7, None, b"bytes", {"a": 1}])
def test_wrong_types(wrong: object) -> None:
    with pytest.raises(UsageError, match="video is of type"):
        open_video(wrong)
    with pytest.raises(UsageError, match="audio is of type"):
        open_sound(wrong)


def test_files_that_are_not_open_as_they_must_be(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(b"\xff")
    with path.open("rb") as closed:
        pass
    with path.open(encoding="utf-8") as text, path.open("ab") as for_writing:
        for opened in (open_video, open_sound):
            for file, said in (
                (io.StringIO("text"), "is one of text; open it in binary mode"),
                (text, "is one of text; open it in binary mode"),
                (closed, "is closed; give one that is open"),
                (for_writing, "is not open for reading"),
            ):
                with pytest.raises(UsageError, match=f"^the (video|sound) file {said}"):
                    opened(file)


@pytest.mark.parametrize("wrong", [3, None, b"v.mp4", io.BytesIO(), ["v.mp4"]])
@pytest.mark.parametrize("opened", [VideoReader, SoundReader, Avatar.open])
def test_what_is_no_path(opened: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"^(video|audio|avatar) is of type \w+; give a path$"):
        opened(wrong)


def test_what_is_no_number_of_a_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", portrait_frames(4))
    video = VideoReader(clip)
    wrong: Any
    for wrong in ("a", 1.5, None, True):
        with pytest.raises(UsageError, match=r"^(start|length) is .*; give a whole number$"):
            video.frames(wrong)
        with pytest.raises(UsageError, match=r"^(start|length) is .*; give a whole number$"):
            video.ping_pong(wrong)
    for wrong in ("a", 3, None, [0.5], [[1], [1, 2]]):
        with pytest.raises(UsageError, match=r"^indices is .*; give whole numbers of frames"):
            video.at(wrong)
    for wrong in ("x", 0, -25, True, float("nan")):
        with pytest.raises(UsageError, match=r"^rate is .*; give a Fraction"):
            VideoReader(clip, wrong)
    numbers: Any = [2, 1]
    assert [index for index, _ in video.at(numbers)] == [2, 1]
    assert len(list(video.frames(np.int64(1), np.int64(3)))) == 2  # type: ignore[arg-type]
