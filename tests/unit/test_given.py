"""Video and sound as callers have them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.errors import MediaError, UsageError
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
    "wrong", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4), np.uint8)]
)
def test_wrong_arrays(wrong: np.ndarray) -> None:
    with pytest.raises(MediaError):
        open_video(wrong)


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
    with pytest.raises(UsageError, match="binary mode"):
        open_video(io.StringIO("text"))
