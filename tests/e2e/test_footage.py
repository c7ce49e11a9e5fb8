"""Part, place and length of footage through whole runs: which frames are seen, and which samples are heard."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip
from lsx import FootageOptions, LipSync
from lsx.errors import UsageError
from lsx.media.video_reader import VideoReader
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.silence import speech_share
from scripts import schemas
from tests.command_line import lsx
from tests.marked_clip import QUICK, heard, marked, numbers


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
