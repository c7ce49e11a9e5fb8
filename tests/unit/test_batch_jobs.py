"""Jobs of a batch as they are written, and every way of writing them wrongly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lsx.errors import UsageError
from lsx.runtime.batch_jobs import read_jobs


def _file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    table = _file(
        tmp_path,
        "j.csv",
        "video,audio,output,steps,guidance,cache_interval,start,crf,faces\n"
        "a.mp4,a.wav,,,,,,,\n"
        '"b, c.mp4",/s/b.wav,b.mov,4,1.5,off,0:01.5,20,t.json\n',
    )
    lines = _file(
        tmp_path,
        "j.jsonl",
        '{"video": "a.mp4", "audio": "a.wav"}\n\n'
        '{"video": "b, c.mp4", "audio": "/s/b.wav", "output": "b.mov", "steps": 4, "guidance": 1.5, '
        '"cache_interval": "off", "start": 1.5, "crf": 20, "faces": "t.json"}\n',
    )
    first, second = read_jobs(table)
    assert (first.line, first.video, first.audio, first.name) == (
        2,
        tmp_path / "a.mp4",
        tmp_path / "a.wav",
        "00002-a.mp4",
    )
    assert (first.sampling.steps, first.sampling.cache_interval, first.encode.crf) == (20, 3, None)
    assert (second.video, second.audio, second.name) == (tmp_path / "b, c.mp4", Path("/s/b.wav"), "b.mov")
    assert (second.sampling.steps, second.sampling.guidance, second.sampling.cache_interval) == (4, 1.5, None)
    assert (second.footage.start, second.footage.faces, second.encode.crf) == (1.5, tmp_path / "t.json", 20)
    other = read_jobs(lines)
    assert [job.line for job in other] == [1, 3]
    assert [(j.sampling, j.footage, j.encode) for j in other] == [
        (j.sampling, j.footage, j.encode) for j in (first, second)
    ]


def test_jobs_of_a_schedule_and_a_video_come_together(tmp_path: Path) -> None:
    rows = ["a,4", "b,2", "a,2", "b,4"]
    table = _file(tmp_path, "j.csv", "video,audio,steps\n" + "".join(f"{r[0]}.mp4,s.wav,{r[2]}\n" for r in rows))
    ordered = sorted(read_jobs(table), key=lambda job: job.order)
    assert [(job.sampling.steps, job.video.stem) for job in ordered] == [(2, "a"), (2, "b"), (4, "a"), (4, "b")]


def test_a_job_is_known_by_its_options_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")

    def digest(steps: int = 2) -> str:
        return read_jobs(_file(tmp_path, "j.csv", f"video,audio,steps\na.mp4,s.wav,{steps}\n"))[0].digest

    before = digest()
    assert digest() == before
    assert digest(3) != before
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    assert digest() != before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("j.csv", "", "no job in it"),
        ("j.csv", "video,audio\n", "no job in it"),
        ("j.txt", "video,audio\n", "give a .csv or a .jsonl file"),
        ("j.csv", "video,sound\na,b\n", "line 2: no audio; give a path"),
        ("j.csv", "video,audio,stps\na,b,2\n", "line 2: there is no option stps; did you mean steps?"),
        ("j.csv", "video,audio,steps\na,b,two\n", "line 2: steps is 'two'; give a whole number"),
        ("j.csv", "video,audio,steps\na,b,0\n", "line 2: steps is 0"),
        ("j.csv", "video,audio,extend\na,b,long\n", "line 2: extend is 'long'; give bounce"),
        ("j.csv", "video,audio,crf\na,b,99\n", "line 2: crf is 99"),
        ("j.csv", "video,audio\na,b,c\n", "line 2: more columns than the header has"),
        ("j.csv", "video,audio,output\na,b,c.avi\n", "line 2: c.avi: the output must end in .mp4"),
        ("j.csv", "video,audio,output\na,b,../c.mp4\n", "line 2: output is '../c.mp4'; give the name of a file"),
        ("j.csv", "video,audio,output\na,b,c.mp4\nd,e,c.mp4\n", "c.mp4 is the output of several jobs (lines 2, 3)"),
        ("j.jsonl", '{"video": "a", "audio": "b"}\n{"video"', "line 2: no JSON"),
        ("j.jsonl", "[1]\n", "line 1: list; give an object"),
        ("j.jsonl", '{"video": 3, "audio": "b"}\n', "line 1: no video; give a path"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_jobs(_file(tmp_path, name, text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_jobs(tmp_path / "j.csv")


def test_segments_stand_in_for_the_audio(tmp_path: Path) -> None:
    _file(tmp_path, "s.json", '[{"start": 0, "end": 1, "audio": "a.wav"}]')
    (job,) = read_jobs(_file(tmp_path, "j.csv", "video,segments,overlap\nv.mp4,s.json,4\n"))
    assert (job.audio, job.footage.overlap) == (None, 4)
    assert job.footage.segments is not None
    assert job.footage.segments[0].audio == tmp_path / "a.wav"
    before = job.digest
    (tmp_path / "a.wav").write_bytes(b"1")
    assert job.digest != before
    with pytest.raises(UsageError, match=r"j\.csv, line 2: no audio; give a path"):
        read_jobs(_file(tmp_path, "j.csv", "video,overlap\nv.mp4,4\n"))
