"""Whole clips through `LipSync.run`: lengths, rates, rotation, faceless frames, sound. Seeded weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import FaceNotFound
from lsx.faces.alignment import Aligner, crop_size, region_of
from lsx.media.colours import EXACT
from lsx.media.video_reader import VideoReader
from lsx.runtime.lipsync import LipSync
from lsx.runtime.run_report import Progress

QUICK: dict[str, Any] = {"steps": 1, "guidance": 1.0}


@pytest.fixture(scope="module")
def lipsync(bundle: Callable[[Precision, int], Bundle]) -> Iterator[LipSync]:
    with LipSync.open(bundle("fp32", 64), "onnxruntime") as opened:
        yield opened


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame of a video, decoded by FFmpeg alone."""
    with av.open(str(path)) as container:
        frames = (f.reformat(format="rgb24", interpolation=EXACT) for f in container.decode(video=0))
        return [np.asarray(frame.to_ndarray(), np.uint8) for frame in frames]


def sound_of(path: Path) -> tuple[int, int, int]:
    """(samples, rate, channels) of a file's sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return sum(f.samples for f in container.decode(stream)), stream.rate, stream.codec_context.channels


def seconds_of(path: Path) -> float:
    with av.open(str(path)) as container:
        assert container.duration is not None
        return container.duration / av.time_base


def faceless(count: int, like: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """A picture of nothing, slowly changing."""
    y, x = np.mgrid[0 : like.shape[0], 0 : like.shape[1]]
    for index in range(count):
        yield np.stack([(x + 2 * index) // 4 % 256, (y // 3) % 256, (x + y) // 8 % 256], -1).astype(np.uint8)


def test_a_clip(lipsync: LipSync, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", portrait_frames(40), crf=1)
    sound = write_wav(tmp_path / "sound.wav", speech(1.3))
    seen: list[Progress] = []
    report = lipsync.run(
        clip,
        sound,
        tmp_path / "out.mp4",
        progress=seen.append,
        crf=1,
        compare=tmp_path / "side.mp4",
        **QUICK,
    )
    results, originals = frames_of(tmp_path / "out.mp4"), frames_of(clip)
    assert report.frames == len(results) == 33  # 1.3 s is 32.5 frames
    assert report.faceless == ()
    assert list(dict.fromkeys(p.frames for p in seen)) == list(range(34))
    assert seen[-1].total == 33
    assert set(report.stages) >= {
        "decode",
        "detect",
        "align",
        "VAE encode",
        "denoise",
        "VAE decode",
        "composite",
        "mux",
    }
    samples, rate, channels = sound_of(tmp_path / "out.mp4")
    assert (rate, channels) == (16000, 1)
    assert 0 <= samples - 20800 <= 1024  # the last AAC frame is padded
    assert abs(seconds_of(tmp_path / "out.mp4") - 33 / 25) < 0.05
    # Outside the face only the codec changes pixels; inside, the mouth is another.
    aligner, detector = Aligner(128), lipsync.detector()
    for result, original in zip(results, originals, strict=False):
        face = detector(original)
        assert face is not None
        x0, y0, x1, y1 = region_of(aligner.affine(face.points), crop_size(128), original.shape[:2], margin=8)
        apart = np.abs(result.astype(int) - original)
        inside = apart[y0:y1, x0:x1].copy()
        apart[y0:y1, x0:x1] = 0
        assert apart.max() <= 24
        assert apart.mean() < 0.5
        assert inside.mean() > 5
    side = frames_of(tmp_path / "side.mp4")
    assert len(side) == 33
    assert side[0].shape == (480, 1280, 3)
    assert np.abs(side[5][:, :640].astype(int) - originals[5]).mean() < 1


def test_a_shorter_video_plays_back_and_forth(lipsync: LipSync, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", portrait_frames(7), crf=1)
    sound = write_wav(tmp_path / "sound.wav", speech(0.8))
    lipsync.run(clip, sound, tmp_path / "out.mp4", crf=1, preset="ultrafast", **QUICK)
    results, originals = frames_of(tmp_path / "out.mp4"), frames_of(clip)
    bounce = [0, 1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5]
    assert len(results) == 20
    for result, index in zip(results, bounce, strict=True):
        # The picture's left edge lies outside the face.
        nearest = min(range(7), key=lambda i: np.abs(result[:, :60].astype(int) - originals[i][:, :60]).mean())
        assert nearest == index


def test_a_clip_shorter_than_a_call(lipsync: LipSync, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", portrait_frames(25))
    sound = write_wav(tmp_path / "sound.wav", speech(0.1))
    assert lipsync.run(clip, sound, tmp_path / "out.mp4", **QUICK).frames == 3
    assert len(frames_of(tmp_path / "out.mp4")) == 3


def test_faceless_frames_pass_through(lipsync: LipSync, tmp_path: Path) -> None:
    (first,) = portrait_frames(1)

    def mixed() -> Iterator[NDArray[np.uint8]]:
        portraits = list(portrait_frames(26))
        yield from portraits[:12]
        yield from faceless(10, first)
        yield from portraits[12:]

    clip = write_clip(tmp_path / "clip.mp4", mixed(), crf=1)
    sound = write_wav(tmp_path / "sound.wav", speech(1.4))
    report = lipsync.run(clip, sound, tmp_path / "out.mp4", crf=1, preset="ultrafast", **QUICK)
    assert report.frames == 35
    assert report.faceless == tuple(range(12, 22))
    assert report.faceless_spans == ((0.48, 0.88),)
    results, originals = frames_of(tmp_path / "out.mp4"), frames_of(clip)
    for index in range(12, 22):
        assert np.abs(results[index].astype(int) - originals[index]).mean() < 1
    with pytest.raises(FaceNotFound, match=r"0\.48 s"):
        lipsync.run(clip, sound, tmp_path / "strict.mp4", no_face="error", **QUICK)
    assert not (tmp_path / "strict.mp4").exists()


def test_no_face_at_all_is_an_error(lipsync: LipSync, tmp_path: Path) -> None:
    (first,) = portrait_frames(1)
    clip = write_clip(tmp_path / "clip.mp4", faceless(12, first))
    sound = write_wav(tmp_path / "sound.wav", speech(0.5))
    with pytest.raises(FaceNotFound, match="no face was found in any frame"):
        lipsync.run(clip, sound, tmp_path / "out.mp4", **QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "sound.wav"]


def test_a_rotated_phone_clip_comes_out_upright(lipsync: LipSync, tmp_path: Path) -> None:
    upright = list(portrait_frames(16, width=480, height=640))
    lying = (np.ascontiguousarray(np.rot90(frame, 1)) for frame in upright)
    clip = write_clip(tmp_path / "phone.mp4", lying, rotation=-90)
    reader = VideoReader(clip)
    assert (reader.width, reader.height) == (480, 640)
    first = next(reader.frames())
    assert np.abs(first.astype(int) - upright[0]).mean() < 3
    sound = write_wav(tmp_path / "sound.wav", speech(0.64))
    assert lipsync.run(clip, sound, tmp_path / "out.mp4", **QUICK).faceless == ()
    results = frames_of(tmp_path / "out.mp4")
    assert results[0].shape == (640, 480, 3)
    assert np.abs(results[0][:, :60].astype(int) - upright[0][:, :60]).mean() < 3


def test_thirty_frames_a_second(lipsync: LipSync, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", portrait_frames(36, fps=30), rate=30)
    sound = write_wav(tmp_path / "sound.wav", speech(1.2))
    assert lipsync.run(clip, sound, tmp_path / "out.mp4", **QUICK).frames == 30
    # Each output frame shows the source frame nearest in time, a later one on a tie only if already due.
    results, originals = frames_of(tmp_path / "out.mp4"), frames_of(clip)
    for index, result in enumerate(results):
        nearest = min(range(36), key=lambda i: np.abs(result[:, :60].astype(int) - originals[i][:, :60]).mean())
        assert abs(nearest / 30 - index / 25) <= 0.021


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    stamps = [0, 20, 100, 140, 300, 340, 360, 700]  # milliseconds
    (first,) = portrait_frames(1)
    pictures = [np.full_like(first, 20 + 25 * i) for i in range(len(stamps))]
    clip = write_clip(tmp_path / "vfr.mp4", iter(pictures), rate=Fraction(25), stamps=stamps, crf=1)
    reader = VideoReader(clip)
    shown = [round((frame.mean() - 20) / 25) for frame in reader.frames()]
    # Frame k of the grid shows the last source frame whose time, rounded to 1/25 s, is k or before.
    slots = [int(s / 40 + 0.5) for s in stamps]
    assert shown[:18] == [max(i for i, slot in enumerate(slots) if slot <= k) for k in range(18)]
    forwards = list(reader.frames())
    backwards = [frame for _, frame in reader.at(np.arange(reader.count)[::-1])]
    assert len(forwards) == reader.count
    assert all(np.array_equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))


def test_long_stereo_sound_and_the_thirty_second_boundary(lipsync: LipSync, tmp_path: Path) -> None:
    """31 s at 44.1 kHz in stereo. A face is there at both ends and across 30 s; between, calls are skipped."""
    rate = 44100
    mono = speech(31.0, rate)
    sound = write_wav(tmp_path / "sound.wav", np.stack([mono, mono[::-1]], axis=1), rate)
    (first,) = portrait_frames(1, width=200, height=150)

    def mixed() -> Iterator[NDArray[np.uint8]]:
        portraits = list(portrait_frames(64, width=200, height=150))
        yield from portraits[:16]
        yield from faceless(720, first)
        yield from portraits[16:]

    clip = write_clip(tmp_path / "clip.mp4", mixed())
    report = lipsync.run(clip, sound, tmp_path / "out.mp4", **QUICK)
    assert report.frames == len(frames_of(tmp_path / "out.mp4")) == 775
    assert report.faceless == tuple(range(16, 736))
    samples, out_rate, channels = sound_of(tmp_path / "out.mp4")
    assert (out_rate, channels) == (rate, 2)
    assert 0 <= samples - 31 * rate <= 1024


def test_colour_tags_are_kept(lipsync: LipSync, tmp_path: Path) -> None:
    clip = tmp_path / "tagged.mp4"
    with av.open(str(clip), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        context = stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 1, 1, 1
        for frame in portrait_frames(16):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(
                stream.encode(
                    picture.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=1, interpolation=EXACT)
                )
            )
        container.mux(stream.encode(None))
    lipsync.run(
        clip, write_wav(tmp_path / "s.wav", speech(0.64)), tmp_path / "out.mp4", crf=1, preset="ultrafast", **QUICK
    )
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_range, context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        (result, *_) = (frame.to_ndarray() for frame in container.decode(video=0))
    with av.open(str(clip)) as container:
        (original, *_) = (frame.to_ndarray() for frame in container.decode(video=0))
    # Luma of the left edge, outside the face: a wrong matrix or range would shift it by many levels.
    assert np.abs(result[:480, :60].astype(int) - original[:480, :60]).mean() < 1


def test_two_runs_with_one_seed_are_the_same(lipsync: LipSync) -> None:
    frames = list(portrait_frames(16))
    sound = speech(0.64)
    first, second = (list(lipsync.stream(frames, sound, seed=3, **QUICK)) for _ in range(2))
    other = list(lipsync.stream(frames, sound, seed=4, **QUICK))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_torch_and_onnxruntime_make_the_same_picture(
    lipsync: LipSync, bundle: Callable[[Precision, int], Bundle]
) -> None:
    frames = list(portrait_frames(16))
    sound = speech(0.64)
    with LipSync.open(bundle("fp32", 64), "torch") as reference:
        wanted = list(reference.stream(frames, sound, **QUICK))
    for a, b in zip(lipsync.stream(frames, sound, **QUICK), wanted, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_a_bundle_runs_without_the_export_libraries(bundle: Callable[[Precision, int], Bundle], tmp_path: Path) -> None:
    """As after `pip install .` without extras: those libraries cannot be imported in this process."""
    absent = ["torch", "diffusers", "transformers", "onnx", "onnxscript", "onnx_ir", "yaml", "tflite"]
    clip = write_clip(tmp_path / "clip.mp4", portrait_frames(16))
    sound = write_wav(tmp_path / "sound.wav", speech(0.3))
    arguments = ["run", str(bundle("fp32", 64).path), str(clip), str(sound), "-o", str(tmp_path / "out.mp4")]
    code = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        f"from lsx.cli.main import main\nmain({[*arguments, '--steps', '1']})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 frames" in done.stdout
    assert len(frames_of(tmp_path / "out.mp4")) == 8
