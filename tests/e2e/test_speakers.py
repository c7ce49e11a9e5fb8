"""Whose mouth moves, in whole runs: rules, segments, several faces, faces that were recorded before."""

from __future__ import annotations

import itertools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import av
import cv2
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import speech, write_clip, write_wav
from examples.tiny.clips import tiny_clip
from examples.tiny.mouth import mouth_track
from examples.tiny.voice import speech as tiny_voice
from lsx import Cancelled, CancelToken, LipSync, Progress
from lsx.errors import FaceNotFound, UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.runtime.face_survey import survey_faces
from scripts import schemas
from tests.command_line import lsx
from tests.marked_clip import QUICK, RATE, heard, marked


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces beside each other, each larger in turn; then, after a cut, one of them alone; then both again."""
    left, right = tiny_clip(1, 60).frames, tiny_clip(2, 60).frames
    frames = []
    for number in range(60):
        a, b = (cv2.resize(one[number], (size, size)) for one, size in zip((left, right), _sizes(number), strict=True))
        picture = np.full((256, 520, 3), 30 if number < 20 else 200, np.uint8)
        picture[: a.shape[0], : a.shape[1]] = a
        if not 20 <= number < 40:
            picture[: b.shape[0], -b.shape[1] :] = b
        frames.append(picture)
    return write_clip(tmp_path_factory.mktemp("pair") / "pair.mp4", iter(frames), crf=1)


def _sizes(number: int) -> tuple[int, int]:
    return (250, 240) if number % 2 else (240, 250)


def halves(original: Path, result: Path, first: int = 0) -> list[str]:
    """Which half of each frame was painted on: L, R, both or neither. first : the original's frame that is shown."""
    made = []
    for before, after in zip(VideoReader(original).frames(first), VideoReader(result).frames(), strict=False):
        changed = cv2.absdiff(before, after).max(axis=(0, 2)) > 60
        middle = before.shape[1] // 2
        made.append("L" * bool(changed[:middle].any()) + "R" * bool(changed[middle:].any()))
    return made


@pytest.mark.parametrize(
    ("speaker", "expected"),
    [
        (None, "R" * 20 + "L" * 20 + "R" * 20),
        ("left", "L" * 60),
        ("right", "R" * 20 + "L" * 20 + "R" * 20),
        ("box=0,0,250,250", "L" * 20 + "-" * 40),
    ],
)
def test_who_speaks(lipsync: LipSync, pair: Path, tmp_path: Path, speaker: str | None, expected: str) -> None:
    options: dict[str, Any] = {} if speaker is None else {"speaker": speaker}
    report = lipsync.run(
        pair, speech(60 / 25), tmp_path / "o.mp4", steps=1, guidance=1.0, crf=1, preset="ultrafast", **options
    )
    assert [half or "-" for half in halves(pair, tmp_path / "o.mp4")] == list(expected)
    assert [choice.frame for choice in report.choices] == ([0] if "-" in expected else [0, 20, 40])
    assert not any(choice.lost for choice in report.choices)
    assert len(report.faceless) == expected.count("-")


@pytest.fixture(scope="module")
def voiced(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two faces, with a sound of their own at 44.1 kHz."""
    return with_sound(pair, speech(60 / 25, RATE), RATE, tmp_path_factory.mktemp("voiced") / "voiced.mkv")


def with_sound(video: Path, samples: NDArray[np.int16], rate: int, path: Path) -> Path:
    own = write_wav(path.with_suffix(".wav"), samples, rate)
    with av.open(str(path), "w") as target, av.open(str(video)) as seen, av.open(str(own)) as audio:
        streams = [(source, target.add_stream_from_template(source.streams[0])) for source in (seen, audio)]
        for source, stream in streams:
            for packet in source.demux(source.streams[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    return path


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The left one talks for 2.4 s, then the right one; what is heard besides the talk of both is a silence at the end.

    The one who does not talk moves the mouth to words that nobody hears.
    """
    folder, turn = tmp_path_factory.mktemp("dialogue"), 60
    heard, unheard = ([tiny_voice(turn / 25, seed) for seed in seeds] for seeds in ((4, 5), (6, 7)))
    quiet = np.zeros(20 * 640, np.int16)
    mouths = ([heard[0], unheard[0], quiet], [unheard[1], heard[1], quiet])
    faces = [
        tiny_clip(seed, 2 * turn + 20, sound=np.concatenate(parts)).frames
        for seed, parts in zip((1, 2), mouths, strict=True)
    ]
    frames = (np.concatenate(pair, axis=1) for pair in zip(*faces, strict=True))
    silent = write_clip(folder / "silent.mp4", frames, crf=12)
    return with_sound(silent, np.concatenate([*heard, quiet]), 16000, folder / "dialogue.mkv")


class Undecided:
    """In StableSyncNet's place: sees the same in all lips, and hears it in all sounds."""

    resolution = 64

    def __init__(self) -> None:
        self.looks: list[tuple[int, ...]] = []

    def seen(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.looks.append(faces.shape)
        return np.ones(1, np.float32)

    def heard(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        assert mel.shape == (80, 52)
        return np.ones(1, np.float32)


@pytest.mark.parametrize("found", ["live", "recorded", "asked"])
def test_the_face_that_speaks_is_dubbed(
    lipsync: LipSync, dialogue: Path, tmp_path: Path, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Undecided()
    if found == "asked":
        monkeypatch.setattr("lsx.runtime.avatar_video.sync_judge", lambda _: nullcontext(judge))
    options: dict[str, Any] = {"speaker": "active", "start": 0.4}
    if found == "recorded":
        options["faces"] = tmp_path / "tracks.json"
        survey_faces(VideoReader(dialogue), lipsync.detector(), "", options["faces"])
    told: list[Progress] = []
    options |= {"steps": 1, "guidance": 1.0, "crf": 1, "preset": "ultrafast", "progress": told.append}
    report = lipsync.run(dialogue, speech(128 / 25), tmp_path / "o.mkv", **options)
    assert report.frames == 128
    looked = [now.looked for now in told if now.to_look]
    frames = list(range(1, 131))  # all that is left of the video
    assert looked == {"recorded": [], "live": frames, "asked": [*frames, *frames]}[found]
    assert judge.looks == [(16, 64, 64, 3)] * (2 * len(range(0, 130 - 15, 8)) if found == "asked" else 0)
    painted = halves(dialogue, tmp_path / "o.mkv", 10)
    talk = mouth_track(SoundReader(dialogue).samples().astype(np.int16), 138).opening[10:] > 0.05
    right = np.array([half == ("L" if number < 50 else "R") for number, half in enumerate(painted)])
    assert right[talk].mean() >= 0.95, painted
    assert [half for half, _ in itertools.groupby(painted)] == ["L", "R"]  # in the silence nobody takes over
    assert [choice.lost for choice in report.choices] == [False, False]


def test_looking_for_who_speaks_is_ended_by_a_token(
    lipsync: LipSync, dialogue: Path, sound: Path, tmp_path: Path
) -> None:
    token, looked = CancelToken(), []

    def cancel(now: Progress) -> None:
        looked.append(now.looked)
        if now.looked == 5:
            token.cancel()

    with pytest.raises(Cancelled):
        lipsync.run(dialogue, sound, tmp_path / "o.mkv", speaker="active", progress=cancel, cancel=token)
    assert looked == [1, 2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == []


def test_nobody_speaks_without_a_sound(lipsync: LipSync, pair: Path, sound: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    with pytest.raises(UsageError, match=r"listens to the video's own sound, and pair\.mp4 has none"):
        lipsync.run(pair, sound, tmp_path / "o.mp4", speaker="active", progress=told.append)
    assert not told  # before any frame is looked at
    with pytest.raises(UsageError, match="which a stream's frames lack; use run"):
        lipsync.stream(marked(), speech(1), speaker="active")


def test_all_faces_speak_in_one_pass(lipsync: LipSync, pair: Path, tmp_path: Path) -> None:
    report = lipsync.run(
        pair, speech(60 / 25), tmp_path / "o.mp4", steps=1, guidance=1.0, crf=1, preset="ultrafast", speaker="all"
    )
    assert halves(pair, tmp_path / "o.mp4") == ["LR"] * 20 + ["L"] * 20 + ["LR"] * 20
    assert [choice.track for choice in report.choices] == [1, 2, 3, 4, 5]
    assert [choice.frame for choice in report.choices] == [0, 0, 20, 40, 40]


def test_segments_have_mouths_and_sounds_of_their_own(lipsync: LipSync, voiced: Path, tmp_path: Path) -> None:
    first, second = speech(1.0, RATE)[::-1].copy(), speech(0.5, RATE)
    segments = [
        {"start": 0.2, "end": 0.6, "audio": write_wav(tmp_path / "a.wav", first, RATE), "speaker": "left"},
        {"start": 0.44, "end": 0.8, "audio": write_wav(tmp_path / "b.wav", second, RATE), "speaker": "right"},
        {"start": 2.0, "end": 2.4, "audio": tmp_path / "b.wav", "speaker": "left"},
    ]
    output = tmp_path / "o.mov"
    report = lipsync.run(voiced, None, output, **QUICK, segments=segments)
    expected = ["L" * (5 <= i < 15 or i >= 50) + "R" * (11 <= i < 20) for i in range(60)]
    assert halves(voiced, output) == expected
    assert (report.frames, report.chunks, report.saved_chunks) == (60, 3, 1)
    pcm, own = heard(output).astype(int), heard(voiced).astype(int)
    assert len(pcm) == len(own) == 60 * 1764
    for start, stop in ((0, 0.2), (0.8, 2.0)):
        assert np.array_equal(
            pcm[round(start * RATE) : round(stop * RATE)], own[round(start * RATE) : round(stop * RATE)]
        )
    alone = slice(round(0.22 * RATE), round(0.42 * RATE))
    assert np.array_equal(pcm[alone], first.astype(int)[alone.start - 8820 : alone.stop - 8820])
    assert lsx("run", lipsync.bundle.path, voiced, "-o", tmp_path / "p.mp4")[0] == 2
    with pytest.raises(UsageError, match="leave the audio out"):
        lipsync.run(voiced, speech(1), tmp_path / "p.mp4", segments=segments)
    with pytest.raises(
        UsageError, match=r"segment 3 goes from 2 to 2\.4 s, and the part of the video .* from 0 to 1 s"
    ):
        lipsync.run(voiced, None, tmp_path / "p.mp4", segments=segments, end=1)


def test_a_segment_s_frames_are_those_of_its_part_alone(lipsync: LipSync, voiced: Path, tmp_path: Path) -> None:
    """The same noise, and the model hears the segment's own sound alone."""
    sound = write_wav(tmp_path / "a.wav", speech(32 / 25, RATE), RATE)
    segment = {"start": 0, "end": 1.28, "audio": sound, "speaker": "left"}
    lossless = QUICK | {"crf": 0}
    lipsync.run(voiced, None, tmp_path / "whole.mkv", **lossless, segments=[segment])
    lipsync.run(voiced, sound, tmp_path / "part.mkv", **lossless, speaker="left", end=1.28)
    whole = list(VideoReader(tmp_path / "whole.mkv").frames())[:32]
    part = list(VideoReader(tmp_path / "part.mkv").frames())
    assert all(np.array_equal(a, b) for a, b in zip(whole, part, strict=True))


def test_faces_that_are_followed_are_those_that_are_found(lipsync: LipSync, pair: Path, tmp_path: Path) -> None:
    sound, reports = speech(60 / 25), []
    for every in (1, 6):
        reports.append(lipsync.run(pair, sound, tmp_path / f"{every}.mkv", **QUICK, speaker="all", detect_every=every))
    assert reports[0].choices == reports[1].choices
    assert halves(pair, tmp_path / "6.mkv") == halves(pair, tmp_path / "1.mkv")


def test_each_face_is_made_as_if_it_were_alone(lipsync: LipSync, pair: Path, tmp_path: Path) -> None:
    """What is pasted on the left is the same whether the right one speaks, too."""
    sound, made = speech(20 / 25), {}
    for name in ("left", "all"):
        lipsync.run(pair, sound, tmp_path / f"{name}.mkv", **QUICK | {"crf": 0}, speaker=name)
        made[name] = np.stack(list(VideoReader(tmp_path / f"{name}.mkv").frames()))[:, :, :256]
    assert np.array_equal(made["left"], made["all"])


def test_recorded_faces_give_the_very_frames_of_live_ones(lipsync: LipSync, pair: Path, tmp_path: Path) -> None:
    tracks, sheet = tmp_path / "tracks.json", tmp_path / "sheet.png"
    code, shown, errors = lsx(
        "faces", pair, "-o", tracks, "--bundle", lipsync.bundle.path, "--sheet", sheet, "--threads", "2"
    )
    assert code == 0, errors
    assert "60 frames, 3 shots, 5 tracks" in shown
    assert cv2.imread(str(sheet)) is not None
    jsonschema.validate(json.loads(tracks.read_text()), schemas.tracks())
    sound = write_wav(tmp_path / "s.wav", speech(60 / 25))
    several: list[dict[str, Any]] = [{}, {"speaker": "left"}, {"start": 0.4, "extend": "loop", "end": 1.2}]
    for options in several:
        for name, faces in (("live", None), ("recorded", tracks)):
            lipsync.run(pair, sound, tmp_path / f"{name}.mkv", **QUICK, **options, faces=faces)
        live, recorded = (VideoReader(tmp_path / f"{name}.mkv").frames() for name in ("live", "recorded"))
        others = [n for n, (a, b) in enumerate(zip(live, recorded, strict=True)) if not np.array_equal(a, b)]
        assert others == [], options
    report = lipsync.run(pair, sound, tmp_path / "o.mkv", **QUICK, speaker="2,4", faces=tracks)
    assert len(report.faceless) == 20
    with pytest.raises(UsageError, match=r"has no track 9; it has 1\.\.5"):
        lipsync.run(pair, sound, tmp_path / "p.mkv", **QUICK, speaker="9", faces=tracks)
    with pytest.raises(FaceNotFound, match=r"no face lies in the box at 0\.00 s\. Faces there"):
        lipsync.run(pair, sound, tmp_path / "p.mkv", **QUICK, speaker="box=250,100,3,3")


def test_other_faces_are_refused(lipsync: LipSync, pair: Path, clip: Path, sound: Path, tmp_path: Path) -> None:
    assert lsx("faces", clip, "-o", tmp_path / "t.json", "--bundle", lipsync.bundle.path)[0] == 0
    code, _, errors = lsx(
        "run", lipsync.bundle.path, pair, sound, "-o", tmp_path / "o.mp4", "--faces", tmp_path / "t.json"
    )
    assert code == 1
    assert "made of another video" in errors
    assert "loading" not in errors
    assert not (tmp_path / "o.mp4").exists()
    with pytest.raises(UsageError, match="speaker and detector both say whose mouth moves"):
        lipsync.stream(marked(), speech(1), speaker="left", detector=lambda _: None)
