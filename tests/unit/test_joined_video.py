"""Videos joined from parts: the packets of the parts, timed as in a video that was encoded at once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lsx.core.clock import FrameClock
from lsx.media.colours import ColourTags
from lsx.media.encoding import EncodeOptions
from lsx.media.given import ArraySound
from lsx.media.joined_video import frames_in, join_videos, suffix_for_joining
from lsx.media.video_writer import VideoWriter

_FRAMES = 26
_UNEVEN = np.concatenate([[0], np.cumsum(np.random.default_rng(0).integers(2000, 5000, _FRAMES))])
CLOCKS = {
    "25": FrameClock.at_rate(25),
    "29.97": FrameClock.at_rate(Fraction(30000, 1001)),
    "uneven": FrameClock(Fraction(1, 90000), _UNEVEN),
}


def _write(path: Path, start: int, stop: int, codec: str, clock: FrameClock, sound: ArraySound | None = None) -> Path:
    picture = np.random.default_rng(1).integers(0, 255, (96, 160, 3), np.uint8)
    colours = ColourTags(space=1, range=1, primaries=1, transfer=1)
    encode = EncodeOptions(codec=codec, preset="12" if codec == "av1" else None)
    with VideoWriter(path, (128, 96), colours=colours, encode=encode, sound=sound, clock=clock) as writer:
        for number in range(start, stop):
            writer.write(np.ascontiguousarray(picture[:, number : number + 128]))
    return path


def _stream(path: Path) -> tuple[list[Any], list[Any], Any]:
    """Times of the pictures, sizes of the sound's packets, and the stream's tag and colours."""
    with av.open(str(path)) as opened:
        video: Any = opened.streams.video[0]
        context: Any = video.codec_context
        facts = (context.codec_tag, context.colorspace, context.color_primaries, context.pix_fmt, context.extradata)
        packets: Any = opened.demux(video)
        times = sorted(p.pts * p.time_base for p in packets if p.dts is not None and p.size)
    with av.open(str(path)) as opened:
        sizes = [packet.size for packet in opened.demux(opened.streams.audio[0])]
    return times, sizes, facts


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", ".mp4"), ("h264", ".mkv"), ("hevc", ".mov"), ("av1", ".mp4"), ("prores", ".mov"), ("prores", ".mkv")],
)
def test_times_sound_and_stream_are_those_of_one_encode(codec: str, suffix: str, clock: str, tmp_path: Path) -> None:
    when = CLOCKS[clock]
    seconds = float(when.seconds(_FRAMES))
    noise = np.random.default_rng(2).standard_normal(int(16000 * seconds)) * 3000
    sound = ArraySound(noise.astype(np.int16))
    whole = _write(tmp_path / f"whole{suffix}", 0, _FRAMES, codec, when, sound)
    part = suffix_for_joining(EncodeOptions(codec=codec))
    parts = [
        (start, _write(tmp_path / f"{start}{part}", start, stop, codec, when.part(start, stop)))
        for start, stop in ((0, 9), (9, _FRAMES))
    ]
    assert [frames_in(path) for _, path in parts] == [9, _FRAMES - 9]
    join_videos(parts, tmp_path / f"joined{suffix}", when, "aac", sound)
    assert _stream(tmp_path / f"joined{suffix}") == _stream(whole)
    with av.open(str(tmp_path / f"joined{suffix}")) as opened:
        assert sum(1 for _ in opened.decode(video=0)) == _FRAMES
