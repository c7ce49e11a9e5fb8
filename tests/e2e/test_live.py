"""A live talker: what is said in pieces is what is said at once, idle frames lead there and back, `clear` is heard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import Avatar, LipSync, LiveFrame, LiveTalker, VideoReader, prepare_avatar
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import EngineClosed, UsageError
from lsx.runtime.live.loop import AvatarLoop
from lsx.runtime.live.pacing import paced
from lsx.runtime.live.playhead import FADE

LOOK: dict[str, Any] = {"steps": 1, "guidance": 1.0, "seed": 5}
FRAMES = 24


@pytest.fixture(scope="module")
def small(bundle: Callable[[Precision, int], Bundle]) -> Bundle:
    return bundle("fp32", 64)


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", portrait_frames(FRAMES), crf=1)


@pytest.fixture(scope="module")
def avatar(small: Bundle, face: Path, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    return prepare_avatar(small, face, tmp_path_factory.mktemp("own") / "own.avatar", backend="onnxruntime")


@pytest.fixture(scope="module")
def opened(small: Bundle) -> Iterator[LipSync]:
    with LipSync.open(small, "onnxruntime", threads=1) as lipsync:
        yield lipsync
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lsx-")]


@pytest.fixture(scope="module")
def said() -> NDArray[np.int16]:
    """1.2 s: three chunks, the last one filled up."""
    return speech(1.2)


def _spoken(opened: LipSync, avatar: Avatar, pieces: list[NDArray[np.int16]], **more: Any) -> list[LiveFrame]:
    with opened.live(avatar, **LOOK, **more) as talker:
        for piece in pieces:
            talker.say(piece)
        talker.end()
        return list(talker.spoken())


@pytest.fixture(scope="module")
def whole(opened: LipSync, avatar: Avatar, said: NDArray[np.int16]) -> list[LiveFrame]:
    return _spoken(opened, avatar, [said])


def _same(frames: list[LiveFrame], others: list[LiveFrame]) -> bool:
    return len(frames) == len(others) and all(
        np.array_equal(one.image, other.image) and np.array_equal(one.samples, other.samples)
        for one, other in zip(frames, others, strict=True)
    )


def test_an_utterance(whole: list[LiveFrame], said: NDArray[np.int16]) -> None:
    assert [frame.number for frame in whole] == list(range(40))  # 16 and two times 12
    assert all(frame.speaking and frame.utterance == 0 for frame in whole)
    assert [frame.last for frame in whole] == [*[False] * 39, True]
    assert np.array_equal(np.concatenate([frame.samples for frame in whole])[: len(said)], said)


@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_any_size(
    opened: LipSync, avatar: Avatar, said: NDArray[np.int16], whole: list[LiveFrame], seed: int
) -> None:
    random = np.random.default_rng(seed)
    cuts = sorted(random.integers(0, len(said), [3, 40, 200][seed]).tolist())
    assert _same(_spoken(opened, avatar, np.split(said, cuts)), whole)


def test_the_first_chunk_is_that_of_a_stream_which_hears_the_same(
    opened: LipSync, avatar: Avatar, face: Path, whole: list[LiveFrame], said: NDArray[np.int16]
) -> None:
    """80 ms of sound after its last frame is all that it may hear; the avatar's own mouth leads over to it."""
    frames = list(VideoReader(face).frames())
    streamed = list(opened.stream(frames, said[: 18 * 640], **LOOK))
    moved = False
    for number in range(16):
        share = min(number + 1, FADE + 1) / (FADE + 1)
        wanted = share * streamed[number].astype(np.float32) + (1 - share) * frames[number]
        assert np.abs(whole[number].image - wanted).max() <= 3  # the VAE encoder's numbers were kept
        moved = moved or bool((np.abs(whole[number].image.astype(int) - frames[number]) > 20).any())
    assert moved
    for left, frame in enumerate(reversed(whole[-FADE:])):  # and back in its last frames
        own = avatar_frame(avatar, 39 - left).astype(int)
        faded = np.abs(frame.image.astype(int) - own).sum()
        assert faded < np.abs(whole[39 - left - FADE].image.astype(int) - avatar_frame(avatar, 39 - left - FADE)).sum()


_LOOPS: dict[Path, AvatarLoop] = {}


def avatar_frame(avatar: Avatar, position: int) -> NDArray[np.uint8]:
    """The avatar's own frame at a position."""
    if avatar.path not in _LOOPS:
        _LOOPS[avatar.path] = AvatarLoop(avatar)
    return _LOOPS[avatar.path].item(position).frame


def test_without_an_overlap_and_after_another_utterance(
    opened: LipSync, avatar: Avatar, said: NDArray[np.int16], whole: list[LiveFrame]
) -> None:
    alone = _spoken(opened, avatar, [said], overlap=0)
    assert len(alone) == 32
    assert not _same(alone[16:], whole[16:32])
    with opened.live(avatar, **LOOK) as talker:
        for _ in range(2):
            talker.say(said)
            talker.end()
        twice = list(talker.spoken())
    assert [frame.utterance for frame in twice] == [*[0] * 40, *[1] * 40]
    assert _same(twice[:40], whole)
    assert not _same(twice[40:], whole)  # from where the avatar was by then
    assert len(talker.latencies) == 1  # the second one was not waited for


def test_idle_frames_lead_out_and_back_to_where_speech_begins(opened: LipSync, avatar: Avatar) -> None:
    with opened.live(avatar, **LOOK) as talker:
        for position in range(2 * FRAMES + 5):
            frame = talker.take()
            assert (frame.number, frame.speaking, frame.utterance) == (position, False, None)
            assert not frame.samples.any()
            assert np.array_equal(frame.image, avatar_frame(avatar, position))
        last = talker._playhead.shown
        talker._computing = 0.24  # as a chunk before would have taken: 6 frames
        talker.say(speech(0.3))
        talker.end()
        while talker._playhead.planned is None:
            threading.Event().wait(0.001)
        seen = []
        for _ in range(7):
            if not talker.ready(0.0):
                seen.append(talker.take() and talker._playhead.shown)
        assert seen == [last + 1 + away for away in (0, 1, 2, 3, 2, 1, 0)][: len(seen)]
        first = talker.take(60)
        assert first.speaking
        assert talker._playhead.shown == last + 1
        rest = list(talker.spoken())
        assert rest[-1].last
        idle = talker.take()
        assert not idle.speaking
        assert np.array_equal(idle.image, avatar_frame(avatar, last + 17))


def test_an_interruption(opened: LipSync, avatar: Avatar) -> None:
    with opened.live(avatar, **LOOK) as talker:
        talker.say(speech(30))
        taken = [talker.take(60) for _ in range(6)]
        assert all(frame.speaking for frame in taken)
        assert talker.ready(60)
        talker.clear()
        assert talker.pending == 0
        away = []
        for place in range(FADE):
            frame = talker.take(0)
            assert not frame.speaking
            assert not frame.samples.any()
            away.append(np.abs(frame.image.astype(int) - avatar_frame(avatar, 6 + place)).sum())
        assert away == sorted(away, reverse=True)
        assert np.array_equal(talker.take().image, avatar_frame(avatar, 6 + FADE))
        talker.say(speech(0.3))
        talker.end()
        spoken = list(talker.spoken())
        assert [frame.utterance for frame in spoken if frame.speaking] == [1] * 16


def test_beside_a_run_both_are_as_alone(
    opened: LipSync, avatar: Avatar, said: NDArray[np.int16], whole: list[LiveFrame], tmp_path: Path
) -> None:
    sound = write_wav(tmp_path / "s.wav", speech(2.5))
    opened.run(avatar, sound, tmp_path / "alone.mp4", **LOOK)
    thread = threading.Thread(target=opened.run, args=(avatar, sound, tmp_path / "beside.mp4"), kwargs=LOOK)
    thread.start()
    assert _same(_spoken(opened, avatar, [said]), whole)
    thread.join()
    assert (tmp_path / "alone.mp4").read_bytes() == (tmp_path / "beside.mp4").read_bytes()


def test_closing_either(small: Bundle, avatar: Avatar) -> None:
    with LipSync.open(small, "onnxruntime", threads=1) as lipsync:
        talker, other = lipsync.live(avatar, **LOOK), lipsync.live(avatar, **LOOK)
        talker.say(speech(3))
        talker.take()
        talker.close()
        with pytest.raises(EngineClosed, match="open another"):
            talker.take()
        other.say(speech(3))
        assert other.take(60).speaking
        lipsync.close()
        with pytest.raises(EngineClosed, match="closed while this run"):
            list(iter(other.take, None))
        with pytest.raises(EngineClosed, match="Open it again"):
            lipsync.live(avatar)


def test_a_paced_talker_gives_idle_frames_by_the_clock_and_spoken_ones_before_it(
    opened: LipSync, avatar: Avatar
) -> None:
    async def taken() -> list[tuple[float, LiveFrame]]:
        loop, found = asyncio.get_running_loop(), []
        with opened.live(avatar, **LOOK) as talker, ThreadPoolExecutor(1) as pool:
            began = loop.time()
            async for frame in paced(talker, pool, 0.5):
                found.append((loop.time() - began, frame))
                if frame.number == 5:
                    talker.say(speech(0.5))
                    talker.end()
                if frame.last:
                    return found
        raise AssertionError

    found = asyncio.run(taken())
    assert [frame.number for _, frame in found] == list(range(len(found)))
    for at, frame in found:
        lead = 0.5 if frame.speaking else 0.0
        assert at >= frame.seconds - lead - 0.005


def test_avatars_that_cannot_be_live(opened: LipSync, small: Bundle, face: Path, tmp_path: Path) -> None:
    other = prepare_avatar(small, face, tmp_path / "30.avatar", fps=30, backend="onnxruntime")
    with pytest.raises(UsageError, match="prepared at 30 frames a second, and live speech has 25"):
        opened.live(other)
    own = prepare_avatar(small, face, tmp_path / "25.avatar", backend="onnxruntime")
    with pytest.raises(UsageError, match="keeps them all"):
        AvatarLoop(own, 1000)
    with pytest.raises(UsageError, match="overlap"):
        opened.live(own, overlap=9)
    with pytest.raises(UsageError, match="priority"):
        opened.live(own, priority=0)
    talker: LiveTalker = opened.live(tmp_path / "25.avatar")
    assert (talker.width, talker.height) == (640, 480)
    talker.close()
