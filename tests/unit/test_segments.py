"""Segments as they are written, in every form, and every way of writing them wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsx.core.footage import FootageOptions
from lsx.core.segments import Segment, read_segments
from lsx.errors import UsageError

ROWS = [
    {"start": 2.5, "end": 4, "audio": "b.wav", "speaker": "right", "audio_offset": -0.5, "volume": 0.5},
    {"start": 0, "end": 2.5, "audio": "/s/a.wav"},
]


def written(folder: Path, content: Any) -> Path:
    (folder / "s.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "s.json"


def test_json_csv_and_sync_so_s_names_say_the_same(tmp_path: Path) -> None:
    expected = (
        Segment(start=0, end=2.5, audio=Path("/s/a.wav")),
        Segment(start=2.5, end=4, audio=tmp_path / "b.wav", speaker="right", audio_offset=-0.5, volume=0.5),
    )
    assert read_segments(written(tmp_path, ROWS)) == expected
    assert read_segments(written(tmp_path, {"segments": ROWS})) == expected
    table = tmp_path / "s.csv"
    table.write_text(
        "start,end,audio,speaker,audio_offset,volume\n0:02.5,4,b.wav,right,-0.5,0.5\n0,2.5,/s/a.wav,,,\n",
        encoding="utf-8",
    )
    assert read_segments(table) == expected
    theirs = {
        "input": [
            {"type": "audio", "url": "b.wav", "refId": "one"},
            {"type": "audio", "url": "/s/a.wav", "refId": "x"},
        ],
        "segments": [
            {"startTime": 0, "endTime": 2.5, "audioInput": {"refId": "x"}},
            {"startTime": 2.5, "endTime": 4, "audioInput": {"refId": "one", "startTime": 0.5, "endTime": 2}},
        ],
    }
    plain = (expected[0], Segment(start=2.5, end=4, audio=tmp_path / "b.wav", audio_offset=-0.5))
    assert read_segments(written(tmp_path, theirs)) == plain
    assert FootageOptions(segments=tmp_path / "s.json").segments == plain
    assert FootageOptions(segments=[{"start": 0, "end": 1, "audio": "a.wav"}]).segments == (
        Segment(start=0, end=1, audio=Path("a.wav")),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no segment in it; give a list of objects"),
        ({"parts": ROWS}, "no segment in it"),
        ([*ROWS, 5], "segment 3: it is 5; give an object"),
        ([{"start": 0, "end": 1}], "segment 1: there is no audio; give the path of a sound"),
        ([{"start": 1, "end": 1, "audio": "a"}], "segment 1: end is 1 and start 1; give an end after the start"),
        ([{"start": "soon", "end": 1, "audio": "a"}], "segment 1: start is 'soon'; give a second of the video"),
        ([{"start": 0, "end": 1, "audio": "a", "who": 1}], "segment 1: there is no option who; choose from start, end"),
        ([{"start": 0, "end": 1, "audio": "a", "speaker": "tall"}], "speaker is 'tall'; give largest, left"),
        ([{"start": 0, "end": 1, "audio": "a", "volume": "loud"}], "volume is 'loud'; give a number in 0..10"),
        ([{"startTime": 0, "endTime": 1, "audioInput": {"refId": "q"}}], "refers to 'q', which is none of the file's"),
    ],
)
def test_wrong_segments_are_refused_with_their_number(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_segments(written(tmp_path, content))
    assert str(refused.value).startswith(f"{tmp_path / 's.json'}")
    assert message in str(refused.value)


def test_what_is_no_file_of_segments(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("[]")
    (tmp_path / "t.json").write_text("[")
    for name, message in (
        ("s.txt", "give a .csv or a .json"),
        ("t.json", "cannot be read"),
        ("no.json", "No such file"),
    ):
        with pytest.raises(UsageError, match=message):
            FootageOptions(segments=tmp_path / name)


def test_segments_go_with_what_they_go_with() -> None:
    one = {"start": 0, "end": 2, "audio": "a.wav"}
    for name, value in (("length", "audio"), ("extend", "loop"), ("audio_offset", 1)):
        with pytest.raises(UsageError, match=f"last as long as the video.*leave {name} out"):
            FootageOptions(segments=[one], **{name: value})
    with pytest.raises(UsageError, match="one begins at 1 s while another of 'largest' lasts to 2 s"):
        FootageOptions(segments=[one, one | {"start": 1, "end": 3}])
    two = FootageOptions(segments=[one, one | {"start": 1, "end": 3, "speaker": "left"}], speaker="right")
    assert [rule.place for rule in two.speaker_rules] == ["right", "left"]
    with pytest.raises(UsageError, match="'3': numbers of tracks needs faces"):
        FootageOptions(segments=[one | {"speaker": "3"}])
    with pytest.raises(UsageError, match="segments is empty"):
        FootageOptions(segments=[])
