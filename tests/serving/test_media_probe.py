"""What uploads are, and what is refused before anything else opens it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lsx.errors import MediaError
from lsx.serving.media_probe import MediaLimits, probed

LIMITS = MediaLimits(max_seconds=10, max_pixels=1920 * 1080, max_streams=8)


def test_what_a_video_and_a_sound_are(video: Path, sound: Path) -> None:
    found = probed(video, LIMITS)
    assert (found.kind, found.width, found.height, found.fps, found.has_sound) == ("video", 64, 48, 25.0, False)
    assert found.duration == pytest.approx(0.6, abs=0.05)
    heard = probed(sound, LIMITS)
    assert (heard.kind, heard.width, heard.has_sound) == ("audio", None, True)
    assert heard.duration == pytest.approx(0.6)


def _png(width: int, height: int) -> bytes:
    """A picture that says that it is so large, and has no such data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no media at all",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        _png(100_000, 100_000),
    ],
    ids=["empty", "text", "ffconcat", "hls", "dash", "huge"],
)
def test_what_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(MediaError) as error:
        probed(path, LIMITS)
    assert str(tmp_path) not in str(error.value)


def test_more_than_is_taken(video: Path, tmp_path: Path, write_video: Callable[..., Path]) -> None:
    few = MediaLimits(max_seconds=0.1, max_pixels=1920 * 1080, max_streams=8)
    with pytest.raises(MediaError, match="lasts 1 s"):
        probed(video, few)
    with pytest.raises(MediaError, match="64 x 48"):
        probed(video, MediaLimits(max_seconds=10, max_pixels=1000, max_streams=8))
    many = write_video(tmp_path / "many.mp4", frames=2, streams=10)
    with pytest.raises(MediaError, match="10 streams"):
        probed(many, LIMITS)
