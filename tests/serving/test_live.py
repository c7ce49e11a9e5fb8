"""Live sessions of a whole server: pictures and sound in step, cut off, refused, beside a job, ended by either side."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import LipSync, prepare_avatar
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import ServerRefused, ServerUnreachable
from lsx.serving.client import AsyncClient
from lsx.serving.client.live import LivePicture
from lsx.serving.live.routes import worth_asking
from scripts.gpu import serve as stage
from tests.serving.served import Served, serving, until

LOOK: dict[str, Any] = {"steps": 1, "guidance": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def small(bundle: Callable[[Precision, int], Bundle]) -> Bundle:
    return bundle("fp32", 64)


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "face.mp4", portrait_frames(24), crf=1)


@pytest.fixture(scope="module")
def served(small: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(Path(small.path), tmp_path_factory.mktemp("live") / "data", "--max-steps", "3") as server:
        yield server.ready()


def _prepared(served: Served, face: Path, **query: str) -> str:
    headers = {"Content-Type": "video/mp4"}
    answer = served.api.post("/v1/avatars", params=query, content=face.read_bytes(), headers=headers)
    assert answer.status_code == 202, answer.text
    number = str(answer.json()["id"])
    until(lambda: served.api.get(f"/v1/avatars/{number}").json()["status"] == "READY")
    return number


@pytest.fixture(scope="module")
def avatar(served: Served, face: Path) -> str:
    """An avatar of the server's that is ready."""
    return _prepared(served, face)


@pytest.fixture(scope="module")
def said() -> NDArray[np.int16]:
    """0.9 s: two chunks, the second one filled up with silence."""
    return speech(0.9)


@pytest.fixture(scope="module")
def alone(small: Bundle, face: Path, said: NDArray[np.int16], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the same sound gives without a server."""
    prepared = prepare_avatar(small, face, tmp_path_factory.mktemp("own") / "own.avatar", backend="onnxruntime")
    with LipSync.open(small, "onnxruntime", threads=1) as lipsync, lipsync.live(prepared, **LOOK) as talker:
        talker.say(said)
        talker.end()
        return list(talker.spoken())


async def _spoken(served: Served, avatar: str, said: NDArray[np.int16], **more: Any) -> list[LivePicture]:
    """Every picture from the session's first to the utterance's last, and three more."""
    found: list[LivePicture] = []
    async with AsyncClient(served.url) as client, client.live(avatar, options=LOOK, **more) as live:
        for start in range(0, len(said), 1111):
            await live.say(said[start : start + 1111])
        await live.end()
        left: int | None = None
        async for picture in live:
            found.append(picture)
            left = 3 if picture.last else None if left is None else left - 1
            if left == 0:
                return found
    raise AssertionError


def test_pictures_and_sound_in_step(served: Served, avatar: str, said: NDArray[np.int16], alone: list[Any]) -> None:
    found = asyncio.run(_spoken(served, avatar, said, quality=95))
    assert [picture.number for picture in found] == list(range(len(found)))
    assert [picture.seconds for picture in found] == pytest.approx([number / 25 for number in range(len(found))])
    spoken = [picture for picture in found if picture.speaking]
    assert len(spoken) == len(alone) == 28
    sound = np.concatenate([picture.samples for picture in spoken])
    assert np.array_equal(sound[: len(said)], said)
    assert not sound[len(said) :].any()
    assert not any(picture.samples.any() for picture in found if not picture.speaking)
    for picture in (found[0], *spoken):
        read = cv2.imdecode(np.frombuffer(picture.picture, np.uint8), cv2.IMREAD_COLOR)
        assert read is not None
        assert read.shape == alone[0].image.shape


def test_fragments_that_a_player_takes_one_by_one(served: Served, avatar: str, said: NDArray[np.int16]) -> None:
    found = asyncio.run(_spoken(served, avatar, said[:8000], video="h264"))
    for count in (1, len(found)):
        content: Any = io.BytesIO(b"".join(picture.picture for picture in found[:count]))
        with av.open(content, "r") as container:
            frames: list[Any] = list(container.decode(video=0))
        assert [float(frame.pts * frame.time_base) for frame in frames] == pytest.approx(
            [picture.seconds for picture in found[:count]]
        )


def test_an_interruption(served: Served, avatar: str) -> None:
    """Of half a minute of speech nothing is left shortly after `clear`, and the next utterance is spoken."""

    async def interrupted() -> list[LivePicture]:
        found: list[LivePicture] = []
        async with AsyncClient(served.url) as client, client.live(avatar, options=LOOK) as live:
            await live.say(speech(20))
            cleared = ended = False
            async for picture in live:
                found.append(picture)
                if picture.speaking and not cleared:
                    await live.clear()
                    cleared = True
                silent = [not one.speaking for one in found[-5:]]
                if cleared and not ended and all(silent):
                    await live.say(speech(0.5))
                    await live.end()
                    ended = True
                if picture.last:
                    return found
        raise AssertionError

    found = asyncio.run(interrupted())
    spoken = [picture.number for picture in found if picture.speaking]
    pauses = np.flatnonzero(np.diff(spoken) > 1)
    assert len(pauses) >= 1
    assert len(spoken) - (pauses[-1] + 1) == 16  # the second utterance, whole


def test_silence_ends_an_utterance(served: Served, avatar: str) -> None:
    async def heard() -> int:
        count = 0
        async with AsyncClient(served.url) as client, client.live(avatar, options=LOOK, end_after=0.1) as live:
            await live.say(speech(0.3).astype(np.float32) / 32768)
            async for picture in live:
                count += picture.speaking
                if picture.last:
                    return count
        raise AssertionError

    assert asyncio.run(heard()) == 16


def test_a_fleet_that_speaks_is_not_asked_one_by_one() -> None:
    fleet: list[Any] = [{"busy": number % 100 != 7, "number": number} for number in range(1000)]
    asked = worth_asking(fleet)
    assert sorted(place["number"] for place in asked[:10]) == list(range(7, 1000, 100))
    assert len(asked) == 18
    assert all(place["busy"] for place in asked[10:])
    assert asked != worth_asking(fleet)
    assert len(worth_asking(fleet[:7])) == 7


def test_one_session_a_worker_and_a_job_beside_it(served: Served, avatar: str, face: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "s.wav", speech(0.64))

    async def sessions() -> None:
        async with AsyncClient(served.url) as client, client.live(avatar, options=LOOK) as live:
            job = served.submit(served.upload(face), served.upload(sound))
            with pytest.raises(ServerRefused, match="every worker speaks already") as refused:
                async with client.live(avatar, options=LOOK):
                    raise AssertionError
            assert refused.value.code == "live_busy"
            await live.say(speech(0.64))
            await live.end()
            async for picture in live:
                if picture.last:
                    break
            ended = await asyncio.to_thread(served.ended, job["id"])
            assert ended["status"] == "COMPLETED"

    asyncio.run(sessions())
    asyncio.run(_spoken(served, avatar, speech(0.3)))  # its worker is free again


def test_a_session_at_once_after_one_that_was_left_in_the_midst_of_a_chunk(served: Served, avatar: str) -> None:
    """A reloaded page gets its session, although the chunk of the one before is still being computed."""

    async def left() -> None:
        async with AsyncClient(served.url) as client, client.live(avatar, options=LOOK | {"steps": 3}) as live:
            await live.say(speech(20))
            async for picture in live:
                if picture.speaking:
                    return

    for _ in range(4):
        asyncio.run(left())
    assert len([one for one in asyncio.run(_spoken(served, avatar, speech(0.3))) if one.speaking]) == 16


@pytest.mark.parametrize(
    ("first", "code", "said"),
    [
        ('{"type": "end"}', "no_start", "of type"),
        ("{", "invalid_request", "JSON"),
        ('{"type": "start"}', "invalid_request", "avatar_id"),
        ('{"type": "start", "avatar_id": "avatar_none"}', "not_found", "avatar"),
        ('{"type": "start", "avatar_id": "%s", "options": {"steps": 9}}', "invalid_options", "at most 3"),
        ('{"type": "start", "avatar_id": "%s", "options": {"sampler": "none"}}', "invalid_options", "sampler"),
        ('{"type": "start", "avatar_id": "%s", "video": "gif"}', "invalid_request", "video"),
    ],
)
def test_what_is_no_session(served: Served, avatar: str, first: str, code: str, said: str) -> None:
    with connect(served.url.replace("http", "ws") + "/v1/live", proxy=None) as connection:
        connection.send(first.replace("%s", avatar))
        told = json.loads(connection.recv(20))
        assert (told["type"], told["code"]) == ("error", code)
        assert said in told["message"]
        with pytest.raises(ConnectionClosed):
            connection.recv(20)
        assert connection.close_code in (1008, 1013)


def test_an_avatar_that_cannot_be_live_is_named_by_its_id(served: Served, face: Path) -> None:
    """And not by where this machine keeps it."""
    number = _prepared(served, face, fps="30")

    async def opened() -> None:
        async with AsyncClient(served.url) as client, client.live(number, options=LOOK):
            raise AssertionError

    with pytest.raises(ServerRefused, match=f"{number}: prepared at 30 frames a second") as refused:
        asyncio.run(opened())
    assert refused.value.code == "invalid_options"
    assert "/" not in str(refused.value)


def test_a_worker_that_ends_in_the_midst_and_the_next_one(served: Served, avatar: str, said: NDArray[np.int16]) -> None:
    async def killed() -> None:
        async with AsyncClient(served.url) as client, client.live(avatar, options=LOOK) as live:
            count = 0
            async for _ in live:
                count += 1
                if count == 5:
                    served.kill("lsx.serving.worker")

    with pytest.raises(ServerUnreachable, match="1013"):
        asyncio.run(killed())

    def again() -> list[LivePicture] | None:
        try:
            return asyncio.run(_spoken(served, avatar, said))
        except (ServerRefused, ServerUnreachable):
            return None

    assert until(again)


def test_the_stage_of_make_gpu_on_a_cpu(small: Bundle, face: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "s.wav", speech(0.64))
    with stage.server(small, tmp_path / "data", "--workers", "cpu:1", "--threads", "1") as address:
        assert re.fullmatch(r"\d+\.\d\d s from file to file, .*", stage.job_seconds(address, (face, sound)))
        said = asyncio.run(stage.live_seconds(address, face, 2))
    found = re.fullmatch(r"2 utterances, sound sent to first picture p50 (\d+), p95 (\d+) ms", said)
    assert found is not None
    assert 0 < int(found[1]) <= int(found[2])
