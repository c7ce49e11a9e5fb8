"""Videos to a data set: every wrong one with its reason, the same bytes whoever works, and again after a kill."""

from __future__ import annotations

import fcntl
import hashlib
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import MediaError, UsageError
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.detector import opened_detector
from lsx.media.video_reader import VideoReader
from lsx.metrics.syncnet import SyncFigures
from lsx.training import source
from lsx.training.inspection import check_shards, contact_sheet, statistics_of
from lsx.training.prepare import PrepareOptions, prepare, work_folder
from lsx.training.shards import DataSet

Bundles = Callable[[Precision, int], Bundle]
Frames = Iterator[NDArray[np.uint8]]
WIDTH, HEIGHT = 256, 192
SHORT: dict[str, Any] = {
    "min_seconds": 1.0,
    "max_seconds": 2.0,
    "min_face": 40,
    "resolution": 64,
    "min_sharpness": 120.0,
}


def portrait(count: int) -> Frames:
    return portrait_frames(count, WIDTH, HEIGHT)


def blank(count: int) -> Frames:
    for index in range(count):
        yield np.full((HEIGHT, WIDTH, 3), 40 + index, np.uint8)


def blurred(count: int) -> Frames:
    for frame in portrait(count):
        yield np.asarray(cv2.GaussianBlur(frame, (0, 0), 1.5), np.uint8)


def still(count: int) -> Frames:
    first = next(portrait(1))
    for _ in range(count):
        yield first


@pytest.fixture(scope="session")
def videos(shared: Path) -> Path:
    """Two talking faces, one of them in two shots, and everything that can be wrong with a video."""
    folder = shared / "data-videos"
    with (shared / "data-videos.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = shared / "data-videos-making"
            made.mkdir()
            write_clip(made / "face.mp4", portrait(30), sound=speech(1.2))
            darker = (np.ascontiguousarray(f[:, ::-1] // 2 + 5) for f in portrait(26))
            write_clip(made / "cut.mp4", iter([*portrait(26), *darker]), sound=speech(2.08, seed=1))
            write_clip(made / "silent.mp4", portrait(26), sound=np.zeros(16640, np.int16))
            write_clip(made / "mute.mp4", portrait(26))
            write_clip(made / "faceless.mp4", blank(26), sound=speech(1.04))
            write_clip(made / "short.mp4", portrait(15), sound=speech(0.6))
            write_clip(made / "blurred.mp4", blurred(26), sound=speech(1.04))
            write_clip(made / "still.mp4", still(26), sound=speech(1.04))
            write_clip(
                made / "cropped.mp4", (np.ascontiguousarray(f[:, :150]) for f in portrait(26)), sound=speech(1.04)
            )
            write_clip(made / "half_sound.mp4", portrait(27), sound=speech(0.6))
            (made / "broken.mp4").write_bytes((made / "face.mp4").read_bytes()[:2000])
            (made / "notes.txt").write_text("not a video")
            (made / "twin.mp4").write_bytes((made / "face.mp4").read_bytes())
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def options(bundle: Bundles) -> PrepareOptions:
    return PrepareOptions(bundle=bundle("fp32", 64).path, processes=1, samples_per_shard=2, **SHORT)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, videos: Path, options: PrepareOptions) -> Path:
    output = tmp_path_factory.mktemp("data") / "set"
    prepare([videos], output, options)
    return output


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_what_is_kept_is_aligned_as_in_a_run(data: Path, videos: Path, options: PrepareOptions) -> None:
    opened = DataSet.open(data)
    assert sorted((row.source, row.start, row.frames) for row in opened.rows if row.source == "face.mp4") == [
        ("face.mp4", 0, 30)
    ]
    row = next(row for row in opened.rows if row.source == "face.mp4")
    aligner = Aligner(64)
    with opened_detector(Bundle.open(options.bundle)) as detector:
        for index, frame in enumerate(VideoReader(videos / "face.mp4").frames()):
            face = detector(frame)
            assert face is not None
            crop = crop_face(frame, aligner.affine(face.points), 64)
            np.testing.assert_array_equal(opened.faces(row, range(index, index + 1))[0], crop)
    heard = opened.samples(row).astype(float)
    assert np.corrcoef(heard, speech(1.2).astype(float))[0, 1] > 0.9
    assert row.sha256 == hashlib.sha256((videos / "face.mp4").read_bytes()).hexdigest()
    assert 60 < row.face_height < 75
    assert row.sharpness > 120
    assert row.sync_offset is None


def test_every_dropped_piece_has_its_reason(data: Path) -> None:
    reasons = {(row.source, row.start): row.reason for row in DataSet.open(data).dropped()}
    whole = {source: reason for (source, start), reason in reasons.items() if start == 0}
    assert "silent" in whole["silent.mp4"]
    assert "no audio stream" in whole["mute.mp4"]
    assert whole["faceless.mp4"] == "no face at 0.00 s"
    assert whole["short.mp4"] == "0.6 s long, under 1 s"
    assert "blurred: sharpness" in whole["blurred.mp4"]
    assert "still picture" in whole["still.mp4"]
    assert "outside the picture" in whole["cropped.mp4"]
    assert "have no sound" in whole["half_sound.mp4"]
    assert "not a readable media file" in whole["broken.mp4"]
    assert "not a readable media file" in whole["notes.txt"]
    assert whole["twin.mp4"] == "the same file as face.mp4"
    assert all("\n" not in reason for reason in whole.values())
    assert {row.source for row in DataSet.open(data).rows} == {"face.mp4", "cut.mp4"}


def test_a_second_run_changes_no_byte(data: Path, videos: Path, options: PrepareOptions) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in data.rglob("*")}
    report = prepare([videos], data, options)
    assert report.unchanged
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in data.rglob("*")} == before
    assert "offsets were NOT checked" in report.lines()[0]
    assert [path.name for path in data.parent.iterdir()] == ["set"]


def test_two_processes_give_the_same_bytes(data: Path, videos: Path, options: PrepareOptions, tmp_path: Path) -> None:
    said: list[str] = []
    prepare([videos], tmp_path / "set", replace(options, processes=2), lambda what, _share: said.append(what))
    assert digests(tmp_path / "set") == digests(data)
    assert "12 of 12 videos done" in said
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_run_that_was_killed_goes_on(data: Path, videos: Path, options: PrepareOptions, tmp_path: Path) -> None:
    program = (
        "import os, pickle, signal, sys\n"
        "from lsx.training.prepare import prepare\n"
        "videos, output, options = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "def watch(what, _share):\n"
        "    if what == '3 of 12 videos done':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare([videos], output, options, watch)\n"
    )
    given = pickle.dumps((videos, tmp_path / "set", options)).hex()
    process = subprocess.run([sys.executable, "-c", program, given], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    finished = list(work_folder(tmp_path / "set").glob("*/*.json"))
    assert 3 <= len(finished) < 12
    times = {path.name: path.stat().st_mtime_ns for path in finished}
    said: list[str] = []

    def stop_at_the_end(what: str, _share: float) -> None:
        said.append(what)
        if what == "writing shards":
            now = {p.name: p.stat().st_mtime_ns for p in work_folder(tmp_path / "set").glob("*/*.json")}
            assert now.items() >= times.items()

    prepare([videos], tmp_path / "set", options, stop_at_the_end)
    assert f"1 of {12 - len(finished)} videos done" in said
    assert digests(tmp_path / "set") == digests(data)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_added_videos_leave_the_others_alone(videos: Path, options: PrepareOptions, tmp_path: Path) -> None:
    both = [videos / "cut.mp4", videos / "face.mp4"]
    prepare(both[:1], tmp_path / "set", options)
    said: list[str] = []
    prepare(both, tmp_path / "set", options, lambda what, _share: said.append(what))
    assert "1 of 1 videos done" in said
    prepare(both, tmp_path / "fresh", options)
    assert digests(tmp_path / "set") == digests(tmp_path / "fresh")
    other = replace(options, resolution=128)
    prepare(both[1:], tmp_path / "set", other)
    assert DataSet.open(tmp_path / "set").info.resolution == 128


def test_a_truncated_set_is_made_again(videos: Path, options: PrepareOptions, tmp_path: Path) -> None:
    prepare([videos / "face.mp4"], tmp_path / "set", options)
    before = digests(tmp_path / "set")
    shard = tmp_path / "set" / "shards" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    assert not prepare([videos / "face.mp4"], tmp_path / "set", options).unchanged
    assert digests(tmp_path / "set") == before


def test_nothing_to_keep_is_an_error(videos: Path, options: PrepareOptions, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"no segment was kept of 2 videos: .*no face at") as error:
        prepare([videos / "faceless.mp4", videos / "short.mp4"], tmp_path / "set", options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="no such file"):
        prepare([videos / "none.mp4"], tmp_path / "set", options)


def test_options_are_checked(options: PrepareOptions, tmp_path: Path) -> None:
    for changes, message in (
        ({"resolution": 100}, "multiple of 8"),
        ({"quality": "best"}, "lossless or near"),
        ({"max_seconds": 1.5}, "at least twice"),
        ({"processes": 0}, "processes is 0"),
        ({"ray": "auto"}, "both given"),
        ({"samples_per_shard": 0}, "samples_per_shard"),
        ({"max_outside": 2.0}, "max_outside"),
        ({"min_sharpness": -1.0}, "min_sharpness"),
        ({"syncnet": tmp_path}, r"syncnet_v2\.model: no such file"),
    ):
        with pytest.raises(UsageError, match=message):
            replace(options, **changes)
    assert {f.name for f in fields(PrepareOptions)} - set(options.recipe()) == {
        "bundle",
        "processes",
        "ray",
        "samples_per_shard",
    }


def test_inspection(data: Path, tmp_path: Path) -> None:
    opened = DataSet.open(data)
    figures = statistics_of(opened)
    assert (figures.segments, figures.sources, figures.sync_checked) == (3, 2, 0)
    assert figures.seconds == pytest.approx(82 / 25)
    assert figures.dropped["no face at … s"] == 1
    assert sum(figures.dropped.values()) == figures.dropped_pieces == len(opened.dropped())
    assert contact_sheet(opened).shape[1] == 6 * 168
    assert check_shards(opened) == []
    copied = tmp_path / "set"
    for path in sorted(data.rglob("*")):
        target = copied / path.relative_to(data)
        if path.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    shard = copied / "shards" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[0] ^= 1  # a member's name
    shard.write_bytes(content)
    wrong = check_shards(DataSet.open(copied))
    assert any("its bytes are not those that were written" in line for line in wrong)
    assert len(wrong) >= 2


def test_the_page(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lsx.cli.main import main

    with pytest.raises(SystemExit) as ended:
        main(["data", "inspect", str(data), "-o", str(tmp_path / "report"), "--verify", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == []
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Sound offsets were not checked" in page
    assert "Height of the face" in page
    assert (tmp_path / "report" / "contact_sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["segments"] == 3


class _SaysOnce:
    """Finds the sound two frames early, and in step when it was shifted."""

    def __init__(self) -> None:
        self.offsets = [2, 0]

    def judge(self, _faces: NDArray[np.uint8], _samples: NDArray[np.int16]) -> SyncFigures:
        return SyncFigures(confidence=4.56789, distance=1.0, offset=self.offsets.pop(0))


def test_what_syncnet_said_is_in_the_row(
    videos: Path, options: PrepareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare([videos / "face.mp4"], tmp_path / "plain", options)
    syncnet = _SaysOnce()
    monkeypatch.setattr(source, "_syncnet", lambda _folder: syncnet)
    prepare([videos / "face.mp4"], tmp_path / "set", options)
    plain, data = DataSet.open(tmp_path / "plain"), DataSet.open(tmp_path / "set")
    assert (data.rows[0].sync_offset, data.rows[0].sync_confidence) == (2, 4.568)
    assert statistics_of(data).sync_checked == 1
    before, after = plain.samples(plain.rows[0]), data.samples(data.rows[0])
    assert (after[:1280] == 0).all()
    np.testing.assert_array_equal(after[1280:], before[:-1280])


def test_segments_of_bad_sync_are_dropped(videos: Path, options: PrepareOptions, tmp_path: Path) -> None:
    """The whole of SyncNet, with seeded weights, whose figures are huge and mean nothing."""
    from tests.unit.test_learned import syncnet_folder

    (tmp_path / "weights").mkdir()
    strict = replace(options, syncnet=syncnet_folder(tmp_path / "weights"), min_confidence=1e30)
    with pytest.raises(MediaError, match="sync confidence"):
        prepare([videos / "face.mp4"], tmp_path / "set", strict)
