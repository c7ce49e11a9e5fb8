"""Runs that are ended in their midst and taken up again: the same frames as of a run that nobody ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import speech, write_clip, write_wav
from examples.tiny.clips import tiny_clip
from lsx import LipSync, Progress, RunReport, prepare_avatar
from lsx.errors import UsageError
from lsx.media.video_reader import VideoReader
from lsx.runtime.face_survey import survey_faces
from lsx.runtime.speaking_faces import looked_at
from tests.marked_clip import QUICK, RATE

FRAMES = 60
"""Of the result: chunks end at 16, 32, 48 and 60; sections of 0.9 s at 32 or, with an overlap of 4, at 24."""


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces beside each other, which move; one is gone for a while, and there is a cut."""
    left, right = tiny_clip(1, 50).frames, tiny_clip(2, 50).frames
    frames = []
    for number in range(50):
        picture = np.full((256, 520, 3), 30 if number < 27 else 200, np.uint8)
        picture[number // 4 :, :256] = left[number][: 256 - number // 4]
        if not 20 <= number < 34:
            picture[:230, -230:] = cv2.resize(right[number], (230, 230))
        frames.append(picture)
    return write_clip(tmp_path_factory.mktemp("pair") / "pair.mp4", iter(frames), crf=1, sound=tiny_clip(1, 50).samples)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, silence, speech."""
    samples = speech(FRAMES / 25, RATE)
    samples[RATE : int(1.6 * RATE)] = 0
    return write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", samples, RATE)


def _killed(lipsync: LipSync, frame: int, *arguments: Any, **options: Any) -> None:
    """A run that ends when `frame` frames are written."""

    def at(progress: Progress) -> None:
        if progress.frames == frame:
            raise Killed

    with pytest.raises(Killed):
        lipsync.run(*arguments, progress=at, **options)


def _same(one: Path, other: Path) -> bool:
    pairs = zip(VideoReader(one, None).frames(), VideoReader(other, None).frames(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs) and np.array_equal(_heard(one), _heard(other))


def _heard(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as opened:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in opened.decode(audio=0)])


def _shown(report: RunReport) -> dict[str, Any]:
    """What of a report does not depend on when things were done; the seam lacks one pair of frames where it went on."""
    left_out = {"output", "seconds", "stages", "waits", "bottleneck", "resumed_frames", "seam"}
    return {name: value for name, value in json.loads(report.as_json()).items() if name not in left_out}


CASES: dict[str, dict[str, Any]] = {
    "all faces, latents led over": {"speaker": "all", "overlap": 4},
    "faces followed, pixels led over": {"detect_every": 4, "extend": "loop", "start": 0.2, "overlap": 5, "cut": True},
    "twice as fast, silence kept": {"fps": 50, "overlap": 2, "silence": "keep", "speaker": "right"},
    "segments": {"segments": True},
    "faces known": {"faces": True},
    "an avatar": {"avatar": True},
    "who speaks": {"speaker": "active"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_ended_goes_on(
    lipsync: LipSync, pair: Path, voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    options: dict[str, Any] = dict(CASES[case])
    video: Any = pair
    audio: Path | None = voice
    if options.pop("cut", False):
        monkeypatch.setattr("lsx.runtime.loaded_bundle.keeps_latents", lambda _: False)
    if options.pop("segments", False):
        spoken = [(0.2, 0.7, "left"), (0.5, 1.2, "right"), (1.5, 1.9, "left")]
        options["segments"] = [
            {"start": start, "end": end, "speaker": who, "audio": str(voice)} for start, end, who in spoken
        ]
        audio = None
    if options.pop("faces", False):
        options["faces"] = tmp_path / "tracks.json"
        family = lipsync.bundle.manifest.faces.family
        survey_faces(VideoReader(pair), lipsync.detector(), family, options["faces"])
    if options.pop("avatar", False):
        video = prepare_avatar(lipsync.bundle, pair, tmp_path / "a.avatar", speaker="right")
    options |= QUICK | {"codec": "h264", "crf": 0}
    looks = []

    def look(*given: Any) -> Any:
        looks.append(1)
        return looked_at(*given)

    monkeypatch.setattr("lsx.runtime.face_choice.looked_at", look)
    plain = lipsync.run(video, audio, tmp_path / "plain.mov", **options)
    kept = options | {"resume_dir": tmp_path / "kept", "resume_every": 0.4 if audio is None else 0.9}
    for frame in (plain.frames // 2 + 2, plain.frames - 1)[: 2 if case.startswith("all") else 1]:
        _killed(lipsync, frame, video, audio, tmp_path / "out.mov", **kept)
        assert not (tmp_path / "out.mov").exists()
    report = lipsync.run(video, audio, tmp_path / "out.mov", **kept)
    assert 0 < report.resumed_frames < plain.frames
    assert _same(tmp_path / "plain.mov", tmp_path / "out.mov")
    assert _shown(report) == _shown(plain)
    assert report.seam == pytest.approx(plain.seam, rel=0.3)
    assert len(looks) == (2 if case == "who speaks" else 0)  # of the plain run, and of the one that was ended
    assert not (tmp_path / "kept").exists()


@pytest.fixture
def ended(lipsync: LipSync, pair: Path, voice: Path, tmp_path: Path) -> dict[str, Any]:
    """The options of a run that was ended in its third section of 16 frames."""
    options = QUICK | {"resume_dir": tmp_path / "kept", "resume_every": 0.5}
    _killed(lipsync, 40, pair, voice, tmp_path / "out.mov", **options)
    return options


@pytest.mark.parametrize(("damaged", "resumed"), [("00001.mp4", 16), ("00001.npz", 16), ("00000.npz", 0)])
def test_what_is_damaged_is_made_again(
    lipsync: LipSync, pair: Path, voice: Path, tmp_path: Path, ended: dict[str, Any], damaged: str, resumed: int
) -> None:
    (file,) = (tmp_path / "kept").rglob(damaged)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    report = lipsync.run(pair, voice, tmp_path / "out.mov", **ended)
    assert report.resumed_frames == resumed
    assert len(list(VideoReader(tmp_path / "out.mov").frames())) == FRAMES


def test_another_run_begins_anew_beside_it(
    lipsync: LipSync, pair: Path, voice: Path, tmp_path: Path, ended: dict[str, Any]
) -> None:
    other = lipsync.run(pair, voice, tmp_path / "other.mov", **ended | {"seed": 1})
    assert other.resumed_frames == 0
    moved = pair.rename(tmp_path / "moved.mp4")
    report = lipsync.run(moved, voice, tmp_path / "out.mov", **ended)
    moved.rename(pair)
    assert report.resumed_frames == 32
    assert report.frames == FRAMES


def test_what_does_not_go_with_it(lipsync: LipSync, pair: Path, voice: Path, tmp_path: Path) -> None:
    frames = np.stack(list(VideoReader(pair).frames()))
    out, kept = tmp_path / "out.mov", tmp_path / "kept"
    for given, message in (
        ((pair, voice, "-"), "needs an output with a path"),
        ((frames, voice, out), "needs a video file"),
    ):
        with pytest.raises(UsageError, match=message):
            lipsync.run(*given, resume_dir=kept, **QUICK)
    with pytest.raises(UsageError, match="leave compare out"):
        lipsync.run(pair, voice, out, compare=tmp_path / "c.mov", resume_dir=kept, **QUICK)
    with pytest.raises(UsageError, match="resume_every is 0"):
        lipsync.run(pair, voice, out, resume_dir=kept, resume_every=0, **QUICK)

    def again(_: Progress) -> None:
        lipsync.run(pair, voice, out, resume_dir=kept, **QUICK)

    with pytest.raises(UsageError, match="is under way there"):
        lipsync.run(pair, voice, out, resume_dir=kept, progress=again, **QUICK)
