"""Prepared avatars: files of rows, the conditioning from moments, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import Bundle, FootageOptions, LipSync, prepare_avatar
from lsx.core.clock import FrameClock
from lsx.core.tensors import Precision
from lsx.errors import BundleError, FaceNotFound, IntegrityError, MediaError, OutputError, UsageError
from lsx.faces.avatar import Avatar
from lsx.faces.avatar_folder import AVATAR
from lsx.media.colours import ColourTags
from lsx.media.video_reader import VideoReader
from lsx.media.video_writer import VideoWriter

Bundles = Callable[[Precision, int], Bundle]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    frames = list(portrait_frames(40))
    frames[7] = np.zeros_like(frames[7])  # a frame without a face
    write_clip(folder / "clip.mp4", iter(frames), sound=speech(1.6))
    write_wav(folder / "speech.wav", speech(2.4))  # 60 frames: the clip plays back and forth
    return folder


@pytest.fixture(scope="module")
def opened(bundle: Bundles) -> Bundle:
    return bundle("fp32", 64)


@pytest.fixture(scope="module")
def lipsync(opened: Bundle) -> Iterator[LipSync]:
    with LipSync.open(opened, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def avatar(opened: Bundle, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    return prepare_avatar(opened, media / "clip.mp4", tmp_path_factory.mktemp("avatar") / "anna")


def frames_of(path: Path) -> np.ndarray[Any, Any]:
    return np.stack(list(VideoReader(path, None).frames()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"extend": "loop", "overlap": 3, "seed": 4},
        {"silence": "keep", "guidance": 1.0},
        {"length": "longest", "audio_offset": 0.3, "sampler": "dpm++2m"},
    ],
    ids=["bounce", "loop and overlap", "silence", "offset"],
)
def test_a_run_has_the_very_frames_of_the_direct_one(
    lipsync: LipSync, avatar: Avatar, media: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    chosen: dict[str, Any] = {"steps": 2, "crf": 0, "preset": "ultrafast"} | options
    direct = lipsync.run(media / "clip.mp4", media / "speech.wav", tmp_path / "direct.mkv", **chosen)
    kept = lipsync.run(avatar.path, media / "speech.wav", tmp_path / "kept.mkv", **chosen)
    wanted, got = frames_of(tmp_path / "direct.mkv"), frames_of(tmp_path / "kept.mkv")
    assert np.array_equal(got, wanted)
    assert not np.array_equal(wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :][: len(wanted) // 2])
    assert (kept.frames, kept.faceless, kept.choices) == (direct.frames, direct.faceless, direct.choices)
    assert "VAE encode" in direct.stages
    assert "VAE encode" not in kept.stages


def test_a_proxy_of_a_part(lipsync: LipSync, opened: Bundle, media: Path, tmp_path: Path) -> None:
    """The part's frames alone, and every value of them."""
    part: dict[str, Any] = {"start": 0.4, "end": 1.2}
    avatar = prepare_avatar(opened, media / "clip.mp4", tmp_path / "proxy", proxy=True, **part)
    kept = np.stack(list(VideoReader(avatar.source, None).frames()))
    source = np.stack(list(VideoReader(media / "clip.mp4").frames()))
    assert np.array_equal(kept, source[10:30])
    chosen: dict[str, Any] = {"steps": 1, "crf": 0, "preset": "ultrafast"}
    lipsync.run(media / "clip.mp4", media / "speech.wav", tmp_path / "direct.mkv", **part, **chosen)
    lipsync.run(avatar, media / "speech.wav", tmp_path / "kept.mkv", **chosen)
    assert np.array_equal(frames_of(tmp_path / "kept.mkv"), frames_of(tmp_path / "direct.mkv"))


def test_every_face_has_a_place(lipsync: LipSync, opened: Bundle, tmp_path: Path) -> None:
    left = list(portrait_frames(20))
    frames = [np.concatenate([a, b[:, ::-1]], axis=1) for a, b in zip(left, left[::-1], strict=True)]
    write_clip(tmp_path / "two.mp4", iter(frames))
    avatar = prepare_avatar(opened, tmp_path / "two.mp4", tmp_path / "two", speaker="all", fps="source")
    assert len(avatar.manifest.places) == 2
    assert set(avatar.faces(5)) == {0, 1}
    chosen: dict[str, Any] = {"steps": 1, "crf": 0, "preset": "ultrafast"}
    sound = speech(0.8)
    lipsync.run(tmp_path / "two.mp4", sound, tmp_path / "direct.mkv", speaker="all", fps="source", **chosen)
    lipsync.run(avatar, sound, tmp_path / "kept.mkv", **chosen)
    assert np.array_equal(frames_of(tmp_path / "kept.mkv"), frames_of(tmp_path / "direct.mkv"))


def test_a_proxy_keeps_uneven_times(lipsync: LipSync, opened: Bundle, tmp_path: Path) -> None:
    frames, starts = list(portrait_frames(24)), np.cumsum([0, *[31, 47, 40, 27] * 6])
    clock = FrameClock(Fraction(1, 1000), starts)
    with VideoWriter(tmp_path / "uneven.mkv", (640, 480), colours=ColourTags(), clock=clock) as writer:
        for frame in frames:
            writer.write(frame)
    part: dict[str, Any] = {"fps": "source", "start": 0.1}
    avatar = prepare_avatar(opened, tmp_path / "uneven.mkv", tmp_path / "uneven", proxy=True, **part)
    assert avatar.manifest.proxy is not None
    assert avatar.manifest.proxy.clock.starts is not None
    assert [choice.frame for choice in avatar.manifest.choices] == [0]
    chosen: dict[str, Any] = {"steps": 1, "crf": 0, "preset": "ultrafast"}
    direct = lipsync.run(tmp_path / "uneven.mkv", speech(0.8), tmp_path / "direct.mkv", **part, **chosen)
    kept = lipsync.run(avatar, speech(0.8), tmp_path / "kept.mkv", **chosen)
    assert np.array_equal(frames_of(tmp_path / "kept.mkv"), frames_of(tmp_path / "direct.mkv"))
    assert kept.frames == direct.frames
    clocks = [VideoReader(tmp_path / name, None).clock for name in ("kept.mkv", "direct.mkv")]
    times = [[clock.seconds(frame) for frame in range(kept.frames)] for clock in clocks]
    assert times[0] == times[1]
    assert len({b - a for a, b in zip(times[0], times[0][1:], strict=False)}) > 2


def test_frames_in_memory(lipsync: LipSync, opened: Bundle, tmp_path: Path) -> None:
    frames = np.stack(list(portrait_frames(20)))
    avatar = prepare_avatar(opened, frames, tmp_path / "frames")
    assert avatar.manifest.proxy is not None
    chosen: dict[str, Any] = {"steps": 1, "crf": 0, "preset": "ultrafast"}
    lipsync.run(frames, speech(0.8), tmp_path / "direct.mkv", **chosen)
    lipsync.run(avatar, speech(0.8), tmp_path / "kept.mkv", **chosen)
    assert np.array_equal(frames_of(tmp_path / "kept.mkv"), frames_of(tmp_path / "direct.mkv"))


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"start": 0.2}, "start is 0.2, and the avatar was prepared with 0.0"),
        ({"fps": "source"}, "fps is source, and the avatar was prepared with 25"),
        ({"speaker": "left"}, "speaker is left, and the avatar was prepared with largest"),
        ({"faces": Path("tracks.json")}, "an avatar has its own"),
    ],
)
def test_other_options_than_it_was_prepared_with(avatar: Avatar, asked: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        avatar.footage(FootageOptions(**asked))


def test_another_encoder_is_refused(bundle: Bundles, avatar: Avatar, media: Path, tmp_path: Path) -> None:
    with (
        LipSync.open(bundle("fp16", 64), threads=1) as other,
        pytest.raises(MediaError, match="prepared with another VAE encoder"),
    ):
        other.run(avatar, media / "speech.wav", tmp_path / "out.mp4", steps=1)
    assert not list(tmp_path.iterdir())


def test_damage_is_told(opened: Bundle, media: Path, tmp_path: Path) -> None:
    made = prepare_avatar(opened, media / "clip.mp4", tmp_path / "made", end=0.8)
    made.verify()
    crops = made.path / made.manifest.places[0].crops.path
    content = bytearray(crops.read_bytes())
    content[-1] ^= 1
    crops.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"crops\.0\.safetensors"):
        Avatar.open(made.path).verify()
    crops.write_bytes(content[:-5])
    with pytest.raises(MediaError, match=r"has \d+ bytes, and had \d+"):
        Avatar.open(made.path)
    crops.unlink()
    with pytest.raises(MediaError, match="missing"):
        Avatar.open(made.path)
    (made.path / AVATAR).write_text("{")
    with pytest.raises(MediaError, match="damaged"):
        Avatar.open(made.path)
    (made.path / AVATAR).write_text(json.dumps({"schema_version": 9, "encoder": ""}))
    with pytest.raises(MediaError, match="schema 9 is not 1"):
        Avatar.open(made.path)


def test_nothing_is_left_of_a_preparation_that_fails(opened: Bundle, media: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "grey.mp4", iter([np.full((256, 256, 3), 90, np.uint8)] * 20))
    with pytest.raises(FaceNotFound, match="no face"):
        prepare_avatar(opened, tmp_path / "grey.mp4", tmp_path / "grey")
    (tmp_path / "grey.mp4").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputError, match="is not a prepared avatar"):
        prepare_avatar(opened, media / "clip.mp4", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_bundle_of_before_is_told(opened: Bundle, media: Path, tmp_path: Path) -> None:
    graphs = dict(opened.manifest.graphs)
    encoder = graphs["vae_encoder"]
    kept = tuple(tensor for tensor in encoder.outputs if tensor.name != "moments")
    graphs["vae_encoder"] = encoder.model_copy(update={"outputs": kept})
    before = Bundle(opened.path, opened.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match="gives no moments"):
        prepare_avatar(before, media / "clip.mp4", tmp_path / "avatar")
