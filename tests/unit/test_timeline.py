"""Which frame and which sound is where: the plan's numbers against rules written out."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from lsx.core.footage import FootageOptions
from lsx.errors import UsageError
from lsx.runtime.timeline import Timeline


def _plan(video: int, sound: float, **options: Any) -> Timeline:
    """For `video` frames and `sound` frames' worth of samples."""
    return Timeline.of(FootageOptions(**options), video, round(640 * sound))


def test_the_default_lasts_as_long_as_the_sound_and_plays_back_and_forth() -> None:
    plan = _plan(3, 9.2)
    assert plan.frames == 10
    assert plan.source().tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2]
    assert plan.source(12).tolist()[10:] == [1, 0]
    assert not plan.is_placed


@pytest.mark.parametrize(
    ("length", "frames"), [("audio", (5, 12)), ("video", (8, 8)), ("shortest", (5, 8)), ("longest", (8, 12))]
)
@pytest.mark.parametrize("extend", ["bounce", "loop", "hold", "remap"])
def test_lengths(length: str, frames: tuple[int, int], extend: str) -> None:
    plans = [_plan(8, sound, length=length, extend=extend) for sound in (5, 12)]
    assert tuple(plan.frames for plan in plans) == frames
    # the sound is cut or filled exactly where it is not as long as the frames
    assert [plan.fitted for plan in plans] == [plan.frames != sound for plan, sound in zip(plans, (5, 12), strict=True)]


def test_what_extends_nothing_ends_with_what_ends_first() -> None:
    for length in ("audio", "video", "shortest", "longest", None):
        assert [_plan(8, sound, length=length, extend="cut_off").frames for sound in (5, 12)] == [5, 8]


def test_silence_extends_the_sound_alone() -> None:
    assert [_plan(8, sound, extend="silence").frames for sound in (5, 12)] == [8, 8]
    assert [_plan(8, sound, extend="silence", length="audio").frames for sound in (5, 12)] == [5, 8]


def test_the_ways_of_extending() -> None:
    assert _plan(3, 8, extend="loop").source().tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert _plan(3, 6, extend="hold").source().tolist() == [0, 1, 2, 2, 2, 2]
    assert _plan(4, 8, extend="remap").source().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert _plan(8, 4, extend="remap").source().tolist() == [1, 3, 5, 7]
    assert _plan(7, 7, extend="remap").source().tolist() == list(range(7))


@pytest.mark.parametrize("extend", ["bounce", "loop", "hold", "remap"])
def test_a_stream_without_end_takes_no_memory(extend: str) -> None:
    plan = _plan(1000, 1100, extend=extend)
    assert list(plan.sources(10_000)) == plan.source(10_000).tolist()
    assert list(plan.sources(10_000, 4095)) == plan.source(10_000)[4095:].tolist()
    assert list(islice(plan.sources(10**15), 5000)) == plan.source(5000).tolist()
    assert plan.shown(10**15) is plan.clock


@pytest.mark.parametrize(("video", "sound"), [(100, 137), (137, 100), (999, 1000), (1000, 999), (1, 2), (2, 1)])
def test_remap_uses_the_whole_video_evenly(video: int, sound: int) -> None:
    plan = _plan(video, sound, extend="remap")
    source = plan.source()
    assert plan.speed == video / sound
    assert source.min() >= 0
    assert source.max() == min(video - 1, int((sound - 0.5) * video / sound))
    steps = np.diff(source)
    assert set(steps.tolist()) <= {int(video / sound), int(video / sound) + 1}
    # never more than half a frame of the video from where it belongs
    assert np.abs(source + 0.5 - (np.arange(sound) + 0.5) * video / sound).max() <= 0.5 + 1e-9


def test_remap_stops_at_its_limit() -> None:
    slow = _plan(4, 20, extend="remap", remap_limit=2)
    assert slow.speed == 0.5
    assert slow.source().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0, 1, 1]
    fast = _plan(40, 10, extend="remap", remap_limit=2)
    assert fast.source().tolist() == list(range(1, 20, 2))
    assert _plan(40, 10, extend="remap", remap_limit=1).source().tolist() == list(range(10))


def test_a_part_of_the_video() -> None:
    plan = _plan(100, 8, start="0:01.2", end=1.32)
    assert (plan.first, plan.count) == (30, 3)
    assert plan.source().tolist() == [30, 31, 32, 32, 31, 30, 30, 31]
    assert _plan(100, 8, start=3.5, end=1e4, length="video").frames == 12
    with pytest.raises(UsageError, match=r"start 4 .*the video lasts 4.00 s"):
        _plan(100, 8, start=4)
    with pytest.raises(UsageError, match="no frame lies between start 1 and end 1"):
        _plan(100, 8, start=1.0, end=1.01)


def test_the_sound_may_come_later_or_lose_its_beginning() -> None:
    assert _plan(9, 5, audio_offset=0.08).frames == 7
    assert _plan(9, 5, audio_offset=-0.08).frames == 3
    assert _plan(9, 5, audio_offset=-0.08).is_placed
    assert _plan(9, 5, audio_offset=0.0001).frames == 6  # two samples more
    with pytest.raises(UsageError, match=r"audio_offset is -0\.2, and the sound lasts 0\.20 s: less than 20 ms"):
        _plan(9, 5, audio_offset=-0.2)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"length": "music"}, "length is 'music'; give audio, video, shortest or longest"),
        ({"extend": 3}, "extend is 3; give bounce, loop, hold, cut_off, silence or remap"),
        ({"remap_limit": 0.5}, "remap_limit is 0.5; give a number in 1..8"),
        ({"start": -1}, "start is -1.0; give a second of the video, as 12.5 or 1:02.5"),
        ({"start": "one"}, "start is 'one'; give a second of the video, as 12.5 or 1:02.5"),
        ({"start": float("nan")}, "start is nan; give a second of the video, as 12.5 or 1:02.5"),
        ({"audio_offset": True}, "audio_offset is True; give seconds, as 0.2, -1.5 or 1:02.5"),
        ({"audio_offset": "1:2:3:4"}, "audio_offset is '1:2:3:4'; give seconds, as 0.2, -1.5 or 1:02.5"),
        ({"start": 2, "end": "0:02"}, "end is 2 and start 2; give an end after the start"),
        (
            {"begin": 2},
            f"there is no option begin; choose from {', '.join(FootageOptions.model_fields)}",
        ),
    ],
)
def test_bad_values_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as raised:
        FootageOptions(**options)
    assert str(raised.value) == line


def test_times_as_people_write_them() -> None:
    for text, seconds in (("90", 90.0), ("1:30", 90.0), ("01:00:01.5", 3601.5), ("-0:01.5", -1.5), (" -2 ", -2.0)):
        assert FootageOptions(audio_offset=text).audio_offset == seconds
