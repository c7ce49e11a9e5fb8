"""Part, place and length of footage through whole runs: which frames are seen, and which samples are heard."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from examples.tiny.clips import tiny_clip
from examples.tiny.mouth import mouth_track
from examples.tiny.voice import speech as tiny_voice
from lsx import Cancelled, CancelToken, Face, FootageOptions, LipSync, Progress
from lsx.bundle.bundle import Bundle
from lsx.core.noise import named_noise
from lsx.core.tensors import Precision
from lsx.errors import FaceNotFound, UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.face_survey import survey_faces
from lsx.runtime.silence import speech_share
from scripts import schemas
from tests.command_line import lsx

QUICK: dict[str, Any] = {"steps": 1, "guidance": 1.0, "codec": "h264", "crf": 1, "audio_codec": "pcm"}
COUNT, RATE = 24, 44100


@pytest.fixture(scope="module")
def lipsync(bundle: Callable[[Precision, int], Bundle]) -> Iterator[LipSync]:
    with LipSync.open(bundle("fp32", 64), "onnxruntime", threads=1) as opened:
        yield opened


def marked() -> list[NDArray[np.uint8]]:
    """Frames whose number stands in their corner, as light."""
    frames = []
    for index, frame in enumerate(portrait_frames(COUNT, 320, 240)):
        numbered = frame.copy()
        numbered[:24, :24] = 10 * index + 5
        frames.append(numbered)
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", iter(marked()), crf=1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 frames of speech at 44.1 kHz; its first sample is the loudest."""
    samples = speech(18 / 25, RATE)
    samples[0] = 32000
    return write_wav(tmp_path_factory.mktemp("sound") / "s.wav", samples, RATE)


def numbers(frames: Any) -> list[int]:
    return [round((float(frame[4:20, 4:20].mean()) - 5) / 10) for frame in frames]


def heard(path: Path) -> NDArray[np.int16]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.rate == RATE
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])


@pytest.mark.parametrize(
    ("options", "expected", "first", "samples"),
    [
        ({}, list(range(18)), 0, 18 * 1764),
        ({"start": 0.8}, [20, 21, 22, 23, 23, 22, 21, 20] * 2 + [20, 21], 0, 18 * 1764),
        ({"start": 0.4, "end": "0:00.6", "extend": "loop"}, [10, 11, 12, 13, 14] * 3 + [10, 11, 12], 0, 18 * 1764),
        ({"length": "video"}, list(range(24)), 0, 24 * 1764),
        ({"length": "video", "end": 0.4}, list(range(10)), 0, 10 * 1764),
        ({"extend": "remap"}, [int((k + 0.5) * 24 / 18) for k in range(18)], 0, 18 * 1764),
        ({"audio_offset": 0.1, "extend": "hold", "end": 0.6}, [*range(15), *[14] * 6], 4410, 18 * 1764 + 4410),
        ({"audio_offset": 0.04, "extend": "silence"}, list(range(24)), 1764, 24 * 1764),
    ],
)
def test_what_is_seen_and_heard(
    lipsync: LipSync,
    clip: Path,
    sound: Path,
    tmp_path: Path,
    options: dict[str, Any],
    expected: list[int],
    first: int,
    samples: int,
) -> None:
    report = lipsync.run(clip, sound, tmp_path / "out.mov", **QUICK, **options)
    assert numbers(VideoReader(tmp_path / "out.mov").frames()) == expected
    assert report.frames == len(expected)
    assert report.source_frames == (min(expected), max(expected) + 1)
    pcm = heard(tmp_path / "out.mov")
    assert len(pcm) == samples
    assert np.flatnonzero(pcm)[0] == first
    original = heard(sound)
    kept = min(len(original), samples - first)
    assert np.array_equal(pcm[first : first + kept], original[:kept])
    assert not pcm[first + kept :].any()


def test_a_stream_goes_the_same_way(lipsync: LipSync) -> None:
    samples = speech(18 / 25)
    options: dict[str, Any] = {"start": 0.8, "extend": "loop", "audio_offset": 0.08}
    for frames in (marked(), np.stack(marked()), iter(marked())):
        with lipsync.stream(frames, samples, steps=1, guidance=1, **options) as stream:
            assert numbers(stream) == [20, 21, 22, 23] * 5
    with lipsync.stream(marked(), samples, "video", footage=FootageOptions(extend="hold"), steps=1) as stream:
        assert numbers(stream) == list(range(24))
    with pytest.raises(UsageError, match="length is video, for which the number of frames must be known"):
        lipsync.stream(iter(marked()), samples, "video")


def test_silence_before_is_what_the_model_hears(lipsync: LipSync) -> None:
    """A later sound is the same as samples with silence before them."""
    samples, frames = speech(16 / 25), marked()
    by_hand = np.concatenate([np.zeros(1600, np.int16), samples])
    with (
        lipsync.stream(frames, samples, steps=1, audio_offset=0.1) as late,
        lipsync.stream(frames, by_hand, steps=1) as same,
    ):
        assert all(np.array_equal(a, b) for a, b in zip(late, same, strict=True))


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
    report = lipsync.run(pair, speech(60 / 25), tmp_path / "o.mp4", steps=1, guidance=1.0, crf=1, **options)
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
    options |= {"steps": 1, "guidance": 1.0, "crf": 1, "progress": told.append}
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
    report = lipsync.run(pair, speech(60 / 25), tmp_path / "o.mp4", steps=1, guidance=1.0, crf=1, speaker="all")
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


@pytest.mark.parametrize(("width", "most"), [(320, 2), (330, 3)])
def test_a_frame_is_copied_at_most_thrice(
    lipsync: LipSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, most: int
) -> None:
    """From the decoder to the encoder: to RGB, out of FFmpeg's rows where they are padded, to the encoder's form."""
    clip = write_clip(tmp_path / "c.mp4", portrait_frames(18, width, 240), crf=1)
    read: dict[int, int] = {}
    written: list[int] = []
    to_rgb, to_picture = VideoReader._rgb, av.VideoFrame.from_numpy_buffer

    def rgb(self: VideoReader, frame: Any) -> NDArray[np.uint8]:
        array = to_rgb(self, frame)
        read[array.ctypes.data] = 1 + (array.base is None)  # converted, and copied where the memory is NumPy's
        kept.append(array)  # so that no other comes to lie there
        return array

    def picture(array: NDArray[np.uint8], format: str) -> Any:  # noqa: A002
        made = to_picture(array, format)
        assert made.planes[0].buffer_ptr == array.ctypes.data
        written.append(read.get(array.ctypes.data, most) + 1)  # too many where it is no array that the decoder gave
        return made

    kept: list[NDArray[np.uint8]] = []
    monkeypatch.setattr(VideoReader, "_rgb", rgb)
    monkeypatch.setattr(av, "VideoFrame", SimpleNamespace(from_numpy_buffer=picture))
    lipsync.run(clip, speech(18 / 25), tmp_path / "o.mkv", **QUICK)
    assert written[-18:] == [most] * 18  # before them the encoder was tried with a picture of its own


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
        assert all(np.array_equal(a, b) for a, b in zip(live, recorded, strict=True))
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


def test_in_silence_the_mouth_is_kept_or_closed(lipsync: LipSync) -> None:
    voice, frames = speech(1.0), list(portrait_frames(64, 320, 240))
    samples = np.concatenate([voice, np.zeros(25 * 640, np.int16), voice])[: 64 * 640]
    made = {}
    for silence in ("sync", "keep", "close"):
        with lipsync.stream(frames, samples, steps=1, silence=silence) as stream:
            made[silence] = list(stream)
    share = speech_share(samples, 64)
    assert 0 < (share == 0).sum() < 24
    kept = [np.array_equal(a, b) for a, b in zip(made["keep"], frames, strict=True)]
    assert kept == (share == 0).tolist()
    # In speech all three are one: a chunk's other frames hear what they heard.
    for number in np.flatnonzero(share == 1).tolist():
        assert np.array_equal(made["keep"][number], made["sync"][number])
    # A closed mouth's tokens are those of a file of silence at the same place of the encoder's 30 s.
    tokens = AudioTokens(lipsync.engines["audio_encoder"], samples, lipsync.bundle.model, speech=share)
    plain = AudioTokens(lipsync.engines["audio_encoder"], samples, lipsync.bundle.model)
    middle = int(np.flatnonzero(share == 0).mean())
    hushed, spoken = tokens.tokens([middle, 0, 63]), plain.tokens([middle, 0, 63])
    assert np.array_equal(hushed[1:], spoken[1:])
    assert not np.array_equal(hushed[0], spoken[0])
    (edge,) = np.flatnonzero((share == 0.5) & (np.arange(64) < middle)).tolist()
    silent = AudioTokens(
        lipsync.engines["audio_encoder"], samples, lipsync.bundle.model, speech=np.zeros(64, np.float32)
    )
    mean = 0.5 * (silent.tokens([edge]) + plain.tokens([edge]))
    assert np.allclose(tokens.tokens([edge]), mean, atol=1e-5)


def test_the_command_line_and_its_report(lipsync: LipSync, clip: Path, sound: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "out.mp4", tmp_path / "report.json"
    code, _, errors = lsx(
        *("run", lipsync.bundle.path, clip, sound, "-o", output, "--steps", "1", "--threads", "1"),
        *("--start", "0:00.2", "--extend", "remap", "--audio-offset=-0.32", "--report", report),
    )
    assert code == 0, errors
    written = json.loads(report.read_text())
    assert written["schema_version"] == 1
    assert (written["frames"], written["source_frames"], written["speed"]) == (10, [5, 24], 1.9)
    jsonschema.validate(written, schemas.run_report())
    assert set(written) == set(schemas.run_report()["properties"])


def test_the_published_schemas_are_the_code_s() -> None:
    """Written anew by: python -m scripts.schemas."""
    assert json.loads((schemas.FOLDER / "run_report.json").read_text()) == schemas.run_report()
    assert json.loads((schemas.FOLDER / "tracks.json").read_text()) == schemas.tracks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--length", "long"), "length is 'long'; give audio, video, shortest or longest"),
        (("--extend", "stretch"), "extend is 'stretch'; give bounce, loop, hold, cut_off, silence or remap"),
        (("--start", "5"), "no frame lies between start 5 and end 0.96; the video lasts 0.96 s"),
        (("--start", "0.5", "--end", "0.2"), "end is 0.2 and start 0.5; give an end after the start"),
        (("--audio-offset=-3",), "audio_offset is -3, and the sound lasts 0.72 s"),
        (("--audio-offset", "0.1", "--audio-codec", "copy"), "audio_codec copy keeps the sound's packets"),
        (("--silence", "quiet"), "silence is 'quiet'; give sync, keep or close"),
        (
            ("--speaker", "tallest"),
            "speaker is 'tallest'; give largest, left, center, right, active, all, a track's number",
        ),
        (("--speaker", "2"), "numbers of tracks needs faces, a file that lsx faces"),
        (("--compare-layout", "top"), "compare_layout is 'top'; give side, stack, wipe or difference"),
        (("--overlap", "9"), "overlap is 9; give a whole number of frames in 0..8"),
        (("--mix", "both"), "mix is 'both'; give replace, over or duck"),
        (("--segments", "none.json"), "none.json: cannot be read"),
        (("--fps", "fast"), "fps is 'fast'; give source, or frames a second from 1 to 240"),
        (("--sharpen", "9"), "sharpen is 9.0; give a number in 0..4"),
        (("--mask", "softer"), "mask is 'softer', no such file; give soft, hard, or a picture of the aligned face"),
        (("--remap-limit", "9"), "remap_limit is 9.0; give a number in 1..8"),
    ],
)
def test_bad_values_stop_before_any_work(
    lipsync: LipSync, clip: Path, sound: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, _, errors = lsx("run", lipsync.bundle.path, clip, sound, "-o", tmp_path / "out.mkv", *options)
    assert code == 2, errors
    assert message in errors
    assert "loading" not in errors
    assert not list(tmp_path.iterdir())


def test_a_report_never_replaces_another_file(lipsync: LipSync, clip: Path, sound: Path, tmp_path: Path) -> None:
    wrong = ((sound, "would replace another file"), (tmp_path, "is a folder"), ("/no/r", "/no: no such folder"))
    for report, message in wrong:
        code, _, errors = lsx("run", lipsync.bundle.path, clip, sound, "-o", tmp_path / "out.mp4", "--report", report)
        assert code == 1, errors
        assert message in errors
    assert not list(tmp_path.iterdir())
