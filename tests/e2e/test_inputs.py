"""What LipSync.run takes: paths, open files and arrays; and what it refuses, and tells meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import Bundle, EncodeOptions, EngineOptions, LipSync, Progress, SamplingOptions, UsageError
from lsx.core.tensors import Precision

Bundles = Callable[[Precision, int], Bundle]

LENGTH = 20
QUICK = SamplingOptions(steps=2, cache_interval=2)


@pytest.fixture(scope="module")
def lipsync(bundle: Bundles) -> Iterator[LipSync]:
    with LipSync.open(bundle("fp32", 64), "onnxruntime", EngineOptions(threads=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clip")
    video = write_clip(folder / "clip.mp4", portrait_frames(LENGTH), crf=1)
    return video, write_wav(folder / "sound.wav", speech(LENGTH / 25))


def _frames(source: Any) -> list[NDArray[np.uint8]]:
    with av.open(source) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_open_files_give_what_paths_give(lipsync: LipSync, clip: tuple[Path, Path], tmp_path: Path) -> None:
    lipsync.run(*clip, tmp_path / "paths.mp4", QUICK)
    made = io.BytesIO()
    with clip[0].open("rb") as video:
        report = lipsync.run(video, io.BytesIO(clip[1].read_bytes()), made, QUICK)
    assert report.output is None
    assert report.frames == LENGTH
    assert not made.closed
    wanted, found = _frames(str(tmp_path / "paths.mp4")), _frames(io.BytesIO(made.getvalue()))
    assert len(found) == LENGTH
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_arrays_give_what_stream_gives(lipsync: LipSync, tmp_path: Path) -> None:
    frames = np.stack(list(portrait_frames(LENGTH)))
    before = frames.copy()
    sound = speech(LENGTH / 25)
    lossless = EncodeOptions(crf=0, pix_fmt="yuv444p")
    lipsync.run(frames, sound, tmp_path / "out.mkv", QUICK, encode=lossless)
    assert np.array_equal(frames, before)  # they are not painted on
    found = _frames(str(tmp_path / "out.mkv"))
    for a, b in zip(found, lipsync.stream(frames, sound, None, QUICK), strict=True):
        assert np.abs(a.astype(int) - b).mean() < 1.5  # YUV and back, in another matrix than FFmpeg's default at most
    with av.open(str(tmp_path / "out.mkv")) as container:
        samples = np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(audio=0)])
    assert len(samples) >= len(sound)


def test_float_samples_are_heard_as_int16_ones(lipsync: LipSync) -> None:
    frames = np.stack(list(portrait_frames(16)))
    sound = speech(16 / 25)
    first = list(lipsync.stream(frames, sound, None, QUICK))
    second = list(lipsync.stream(frames, (sound / 32768).astype(np.float32), None, QUICK))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((7, "s.wav", "o.mp4"), {}, "video is of type int"),
        (("v.mp4", 7, "o.mp4"), {}, "audio is of type int"),
        (("v.mp4", "s.wav", 7), {}, "output is of type int"),
        (("v.mp4", "s.wav", io.StringIO()), {}, "binary mode"),
        (("v.mp4", "s.wav", "o.mp4", 20), {}, "sampling is 20; give a SamplingOptions, or keywords such as steps="),
        (("v.mp4", "s.wav", "o.mp4"), {"stepz": 3}, "did you mean steps"),
        (("v.mp4", "s.wav", "o.mp4"), {"guidance": "high"}, "guidance is 'high'"),
        (("v.mp4", "s.wav", "o.mp4"), {"cache_interval": "on"}, "cache_interval is 'on'"),
        (("v.mp4", "s.wav", "o.mp4"), {"cancel": 3}, "cancel is 3; give a CancelToken"),
        (("v.mp4", "s.wav", "o.mp4"), {"progress": 3}, "progress is 3; give a function"),
        (("v.mp4", "s.wav", "o.mp4"), {"compare": 3}, "compare is of type int"),
    ],
)
def test_wrong_types_are_usage_errors(
    lipsync: LipSync, clip: tuple[Path, Path], arguments: Any, options: Any, said: str
) -> None:
    names = {"v.mp4": clip[0], "s.wav": clip[1], "o.mp4": clip[0].with_name("o.mp4")}
    given: list[Any] = [names[a] if isinstance(a, str) else a for a in arguments]
    with pytest.raises(UsageError, match=said):
        lipsync.run(*given, **options)


def test_off_and_none_are_one() -> None:
    assert SamplingOptions(cache_interval="off") == SamplingOptions(cache_interval=None)  # type: ignore[arg-type]


def test_progress_tells_steps_and_the_whole_from_the_start(
    lipsync: LipSync, clip: tuple[Path, Path], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    lipsync.run(*clip, tmp_path / "out.mp4", steps=12, cache_interval="off", progress=seen.append)
    assert seen[0].frames == 0
    assert {p.total for p in seen} == {LENGTH}
    assert {(p.chunks, p.steps) for p in seen} == {(2, 12)}
    assert [p.frames for p in seen if p.frames] == sorted(p.frames for p in seen if p.frames)
    assert seen[-1].frames == LENGTH
    assert seen[-1].seconds_left == 0
    before_a_frame = [p for p in seen if not p.frames and p.step]
    assert before_a_frame, "no denoising step was told before the first chunk was done"
    assert {p.seconds_left for p in before_a_frame if p.chunk == 1} == {None}
    assert all(p.seconds_left for p in seen if 0 < p.frames < LENGTH)


def test_the_old_keyword_works_and_warns(bundle: Bundles) -> None:
    with pytest.warns(DeprecationWarning, match="reference is now called checkpoint_dir"):
        LipSync.open(bundle("fp32", 64), "onnxruntime", reference="x").close()  # type: ignore[call-arg]
