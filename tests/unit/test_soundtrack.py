"""The sound of an output: which codecs go into which container, and how much is handed out."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from examples.synthetic_clip import speech, write_wav
from lsx.errors import UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.soundtrack import Soundtrack, check_soundtrack

HELD = {"aac", "opus", "pcm_s16le", "mp3"}


@pytest.fixture
def sound(tmp_path: Path) -> SoundReader:
    return SoundReader(write_wav(tmp_path / "s.wav", speech(1.0)))


@pytest.mark.parametrize(
    ("codec", "container", "fits"),
    [
        ("aac", "mp4", True),
        ("opus", "mp4", True),
        ("opus", "mov", False),
        ("pcm", "mov", True),
        ("pcm", "mp4", False),
        ("copy", "matroska", True),
        ("copy", "mp4", False),
    ],
)
def test_what_goes_where(sound: SoundReader, codec: str, container: str, fits: bool) -> None:
    if fits:
        check_soundtrack(codec, sound, container, HELD)
        return
    with pytest.raises(UsageError, match=r"does not go into|is pcm_s16le"):
        check_soundtrack(codec, sound, container, HELD)


@pytest.mark.parametrize("codec", ["aac", "pcm", "copy"])
def test_all_of_it_is_handed_out(sound: SoundReader, codec: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "o.mkv"), "w") as container:
        track = Soundtrack(container, codec, sound)
        for packets in track.packets():
            container.mux(packets)
        assert float(track.end) == pytest.approx(1.0, abs=0.07)
