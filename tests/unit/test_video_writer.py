"""Video out: frames and sound come back, and nothing is left of what failed."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_wav
from lsx.media.audio_reader import SoundReader
from lsx.media.colours import ColourTags
from lsx.media.encoding import EncodeOptions
from lsx.media.video_writer import VideoWriter


def test_frames_and_sound_come_back(tmp_path: Path) -> None:
    frames = list(portrait_frames(8, 160, 120))
    sound = SoundReader(write_wav(tmp_path / "s.wav", speech(0.32)))
    path = tmp_path / "o.mkv"
    options = EncodeOptions(crf=0, pix_fmt="yuv444p", audio_codec="pcm")
    with VideoWriter(path, (160, 120), colours=ColourTags(space=1), encode=options, sound=sound) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(path)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        samples = np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(audio=0)])
    assert len(found) == 8
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(found, frames, strict=True)) < 1.5
    assert np.array_equal(samples, speech(0.32))


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "o.mp4", (64, 64), colours=ColourTags()) as writer:
            writer.write(np.zeros((64, 64, 3), np.uint8))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_open_file_gets_fragments() -> None:
    file = io.BytesIO()
    with VideoWriter(file, (64, 64), colours=ColourTags()) as writer:
        for level in range(30):
            writer.write(np.full((64, 64, 3), level, np.uint8))
    assert b"moof" in file.getvalue()
    with av.open(io.BytesIO(file.getvalue()), "r") as container:
        assert len(list(container.decode(video=0))) == 30
