"""Avatars through the command line: prepared, run, batched, looked at, measured, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.media.video_reader import VideoReader
from tests.command_line import lsx

QUICK = ("--steps", "1", "--crf", "0", "--preset", "ultrafast")


@pytest.fixture(scope="module")
def work(bundle: Callable[[Precision, int], Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avatars")
    (folder / "bundle").symlink_to(bundle("fp32", 64).path)
    write_clip(folder / "clip.mp4", portrait_frames(30), sound=speech(1.2))
    write_wav(folder / "speech.wav", speech(1.6))
    code, shown, errors = lsx("prepare", folder / "bundle", folder / "clip.mp4", "-o", folder / "anna")
    assert code == 0, errors
    assert f"avatar: {folder / 'anna'} (30 frames, " in " ".join(shown.split())
    return folder


def _frames(path: Path) -> NDArray[np.uint8]:
    return np.stack(list(VideoReader(path, None).frames()))


def test_a_batch_and_a_run_have_the_frames_of_the_video(work: Path) -> None:
    rows = [
        "video,audio,output,steps,crf,preset",
        *(f"{v},speech.wav,{v}.mkv,1,0,ultrafast" for v in ("anna", "clip.mp4")),
    ]
    (work / "jobs.csv").write_text("\n".join(rows))
    code, _, errors = lsx("batch", work / "bundle", work / "jobs.csv", "-o", work / "results")
    assert code == 0, errors
    code, _, errors = lsx("run", work / "bundle", work / "anna", work / "speech.wav", "-o", work / "out.mkv", *QUICK)
    assert code == 0, errors
    wanted = _frames(work / "results" / "clip.mp4.mkv")
    assert len(wanted) == 40
    assert np.array_equal(_frames(work / "results" / "anna.mkv"), wanted)
    assert np.array_equal(_frames(work / "out.mkv"), wanted)


def test_segments_keep_the_videos_own_sound_and_frames(work: Path) -> None:
    segments = work / "segments.json"
    segments.write_text(json.dumps([{"start": 0.2, "end": 0.6, "audio": "speech.wav"}]))
    made = []
    for source in ("clip.mp4", "anna"):
        target = work / f"{source}-segments.mkv"
        code, _, errors = lsx("run", work / "bundle", work / source, "--segments", segments, "-o", target, *QUICK)
        assert code == 0, errors
        made.append(target)
    assert np.array_equal(_frames(made[0]), _frames(made[1]))
    assert made[0].stat().st_size == made[1].stat().st_size  # and the sound


def test_what_it_is_is_told(work: Path) -> None:
    told: dict[str, Any] = json.loads(lsx("inspect", work / "anna", "--json")[1])
    assert (told["frames"], told["fps"], told["speaker"], told["resolution"]) == (30, "25", "largest", 64)
    _, shown, _ = lsx("inspect", work / "anna", "--all")
    assert "place 0: a face in 30 frames" in shown
    assert shown.count(", intact") == 4


def test_it_is_measured_beside_the_video(work: Path) -> None:
    report = work / "report"
    arguments = ["--sections", "", "--backends", "onnxruntime", "--steps", "1", "--repeat", "1", "-o", str(report)]
    clip = ["--clip", str(work / "clip.mp4"), str(work / "speech.wav"), "--avatar"]
    code, _, errors = lsx("bench", work / "bundle", *arguments, *clip)
    assert code == 0, errors
    rows = [row for row in json.loads((report / "report.json").read_text())["rows"] if row["section"] == "avatar"]
    assert [row["contender"] for row in rows] == ["video", "avatar", "onnxruntime"]
    assert rows[1]["versus"] == "video"
    assert rows[1]["ratio"]["median"] == pytest.approx(rows[0]["seconds"]["median"] / rows[1]["seconds"]["median"])


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (
            ["run", "bundle", "anna", "speech.wav", "-o", "o.mp4", "--speaker", "left"],
            2,
            "speaker is left, and the avatar",
        ),
        (["run", "bundle", "anna", "speech.wav", "-o", "o.mp4", "--start", "0.2"], 2, "start is 0.2, and the avatar"),
        (["run", "bundle", "damaged", "speech.wav", "-o", "o.mp4"], 1, "moments.0.safetensors: has "),
        (["prepare", "bundle", "clip.mp4", "-o", "bundle"], 1, "is not a prepared avatar"),
        (["prepare", "bundle", "clip.mp4", "-o", "new", "--start", "9"], 2, "no frame lies between"),
        (["prepare", "bundle", "speech.wav", "-o", "new"], 1, "speech.wav: "),
        (["bench", "bundle", "--avatar"], 2, "--avatar is of a clip"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, line: str
) -> None:
    monkeypatch.chdir(work)
    if "damaged" in arguments:
        shutil.copytree(work / "anna", work / "damaged")
        file = work / "damaged" / "moments.0.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    ended, _, errors = lsx(*arguments)
    assert ended == code
    assert line in errors.strip().splitlines()[-1]
    assert not any((work / name).exists() for name in ("o.mp4", "new"))
