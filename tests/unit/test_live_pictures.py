"""Pictures of a live session: each fragment plays with those before it alone, its picture that which was given."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.errors import UsageError
from lsx.media.colours import ColourTags
from lsx.media.live_pictures import H264Fragments, jpeg
from lsx.media.video_reader import VideoReader
from lsx.serving.live.messages import JPEG, MP4, Media, Start, read_message, request_of


def _frames(count: int, width: int = 96, height: int = 64) -> list[NDArray[np.uint8]]:
    """A soft picture that moves."""
    y, x = np.mgrid[0:height, 0:width]
    shades = [np.stack([x * 2 + 3 * i, y * 3, 128 + 0 * x], -1) for i in range(count)]
    return [np.clip(shade, 0, 255).astype(np.uint8) for shade in shades]


def _decoded(content: bytes) -> list[Any]:
    file: Any = io.BytesIO(content)
    with av.open(file, "r") as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize(("width", "height"), [(96, 64), (97, 65), (320, 180)])
def test_every_fragment_is_there_at_once(width: int, height: int) -> None:
    encoder, frames = H264Fragments(width, height, 90), _frames(30, width, height)
    parts = [encoder.add(frame) for frame in frames]
    assert parts[0][4:8] == b"ftyp"
    assert all(part[4:8] == b"moof" for part in parts[1:])
    for count in (1, 2, 17, 30):
        read = _decoded(b"".join(parts[:count]))
        assert [float(one.pts * one.time_base) for one in read] == pytest.approx([i / 25 for i in range(count)])
        for one, frame in zip(read, frames, strict=False):
            picture = one.to_ndarray(format="rgb24").astype(int)
            own = frame[: height - height % 2, : width - width % 2]
            assert picture.shape == own.shape
            assert np.abs(picture - own).mean() < 6
    assert [one.key_frame for one in _decoded(b"".join(parts))] == [i % 25 == 0 for i in range(30)]


def test_colours_are_tagged_and_come_back(tmp_path: Path) -> None:
    """Players guess the matrix of what is not tagged, and not all guess the same."""
    colours = [(200, 40, 40), (40, 180, 60), (50, 60, 200), (128, 128, 128)]
    encoder = H264Fragments(64, 48, 100)
    path = tmp_path / "live.mp4"
    path.write_bytes(b"".join(encoder.add(np.full((48, 64, 3), colour, np.uint8)) for colour in colours))
    video = VideoReader(path)
    assert video.colours == ColourTags(space=1, range=1, primaries=1, transfer=1)
    for colour, (_, frame) in zip(colours, video.at(np.arange(4)), strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 2


def test_quality_is_paid_for() -> None:
    noise = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8) for i in range(3)]

    def sizes(quality: int) -> tuple[int, int]:
        encoder = H264Fragments(64, 64, quality)
        return sum(len(encoder.add(frame)) for frame in noise), sum(len(jpeg(frame, quality)) for frame in noise)

    low, middle, high = sizes(1), sizes(50), sizes(100)
    assert low < middle < high


def test_jpeg_is_in_the_right_colours() -> None:
    (frame,) = _frames(1)
    read: Any = cv2.imdecode(np.frombuffer(jpeg(frame, 95), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(cv2.cvtColor(read, cv2.COLOR_BGR2RGB).astype(int) - frame).mean() < 3


def test_binary_messages() -> None:
    sent = Media(MP4, 75, speaking=True, last=False, content=b"abc").packed()
    assert sent.hex() == "03010000" + "0000004b" + f"{3_000_000:016x}" + b"abc".hex()
    read = read_message(sent)
    assert (read.kind, read.number, read.seconds, read.speaking, read.last, read.content) == (
        MP4,
        75,
        3.0,
        True,
        False,
        b"abc",
    )
    assert read_message(Media(JPEG, 0, speaking=False, last=True, content=b"").packed()).last
    with pytest.raises(UsageError, match="15 bytes"):
        read_message(sent[:15])


def test_requests() -> None:
    start = request_of('{"type": "start", "avatar_id": "a", "options": {"steps": 4, "cache_interval": "off"}}')
    assert isinstance(start, Start)
    assert start.options.sampling == {"steps": 4, "cache_interval": "off"}
    assert (start.video, start.lead, start.end_after, start.options.overlap) == ("jpeg", 0.2, 0.5, 4)
    for text, said in (
        ("[]", "the message"),
        ('{"type": "stop"}', "the message"),
        ('{"type": "clear", "all": true}', "all"),
        ('{"type": "start", "avatar_id": "a", "lead": 0}', "lead"),
        ('{"type": "start", "avatar_id": "a", "options": {"stepz": 4}}', "options.stepz"),
    ):
        with pytest.raises(UsageError, match=said):
            request_of(text)
