"""Other rates than 25 frames a second, and frames that come unevenly, through whole runs."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech
from lsx import Face, LipSync
from lsx.core.noise import named_noise
from lsx.errors import UsageError
from lsx.media.video_reader import VideoReader
from tests.marked_clip import COUNT, QUICK, marked, numbers


def timed(path: Path, rate: Fraction, stamps: list[int], tick: Fraction) -> Path:
    """Frames whose number stands in their corner, at these ticks."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = tick
        for stamp, frame in zip(stamps, itertools.cycle(marked()), strict=False):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = stamp, tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def stamps_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        return sorted(Fraction(packet.pts or 0) * Fraction(packet.time_base or 1) for packet in packets)


UNEVEN = [0, 40, 73, 140, 150, 190, 260, 300, 340, 380, 385, 420, 500, 540, 580, 620, 700, 740]
RATES = ["24000/1001", "30000/1001", "30", "50", "60000/1001", "60"]


@pytest.mark.parametrize("rate", [*RATES, "uneven"])
def test_every_source_frame_keeps_its_time(lipsync: LipSync, tmp_path: Path, rate: str) -> None:
    if rate == "uneven":
        even, stamps, tick = Fraction(25), UNEVEN, Fraction(1, 1000)
    else:
        even, stamps, tick = Fraction(rate), list(range(40)), 1 / Fraction(rate)
    clip = timed(tmp_path / "clip.mp4", even, stamps, tick)
    report = lipsync.run(
        clip, speech(3), tmp_path / "o.mp4", **QUICK | {"audio_codec": "aac"}, fps="source", length="video"
    )
    assert report.frames == len(stamps)
    before, after = stamps_of(clip), stamps_of(tmp_path / "o.mp4")
    assert [float(t - after[0]) for t in after] == pytest.approx([float(t - before[0]) for t in before], abs=1e-4)
    assert numbers(VideoReader(tmp_path / "o.mp4", None).frames()) == [k % COUNT for k in range(len(stamps))]
    whole = float(before[-1] + (before[-1] - before[-2] if rate != "uneven" else 0) - before[0])
    with av.open(str(tmp_path / "o.mp4")) as container:
        stream = container.streams.audio[0]
        sounds = float((stream.duration or 0) * Fraction(stream.time_base or 1))
    assert sounds == pytest.approx(whole, abs=0.06)
    fast = rate != "uneven" and even >= 50
    assert report.chunks == (4 if fast else -(-len(stamps) // 16))
    assert report.fps == pytest.approx(float(even) if rate != "uneven" else len(stamps) / 0.78, rel=0.03)


def test_at_twice_the_rate_every_other_frame_is_what_25_makes(lipsync: LipSync) -> None:
    """Interleaved chunks: the even frames, and the odd ones, each as a clip of their own of 25 a second."""
    frames, samples = list(portrait_frames(64, 320, 240)), speech(64 / 50)
    still = Face(points=np.array([[130.0, 100], [190, 100], [160, 140]]))
    options: dict[str, Any] = {"steps": 1, "detector": lambda _: still}

    def noise(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return named_noise(name.partition(".")[0], shape, 0)  # the same for every chunk

    made = {}
    for step in (1, 2):
        fps = 50 // step
        with lipsync.stream(frames[::step], samples, fps=fps, noise=noise, **options) as stream:
            made[step] = list(stream)
    assert [len(each) for each in made.values()] == [64, 32]
    assert all(np.array_equal(a, b) for a, b in zip(made[1][::2], made[2], strict=True))
    assert not np.array_equal(made[1][1], frames[1])
    with pytest.raises(UsageError, match="fps is source, and frames have no times of their own"):
        lipsync.stream(frames, samples, fps="source")
