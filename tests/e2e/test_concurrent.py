"""Runs of files at once, cancelled and closed: pictures as alone, and nothing left in the folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import CancelToken, LipSync, SamplingOptions
from lsx.bench.clients import client_rows, counts_to
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import Cancelled, EngineClosed
from lsx.runtime.run_report import Progress, ProgressCallback
from tests.e2e.test_run import frames_of

QUICK: dict[str, Any] = {"steps": 1, "guidance": 1.0, "crf": 1, "preset": "ultrafast"}


@pytest.fixture(scope="module")
def bundle128(bundle: Callable[[Precision, int], Bundle]) -> Bundle:
    return bundle("fp32", 64)


@pytest.fixture
def lipsync(bundle128: Bundle) -> Iterator[LipSync]:
    with LipSync.open(bundle128, "onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Two videos, one mirrored, and two sounds."""
    folder = tmp_path_factory.mktemp("clips")
    frames = list(portrait_frames(20))
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    videos = [write_clip(folder / f"{i}.mp4", iter(one), crf=1) for i, one in enumerate((frames, mirrored))]
    return [(video, write_wav(folder / f"{i}.wav", speech(0.4 + 0.1 * i))) for i, video in enumerate(videos)]


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_files_at_once_are_as_alone(lipsync: LipSync, clips: list[tuple[Path, Path]], tmp_path: Path) -> None:
    for number, (video, sound) in enumerate(clips):
        lipsync.run(video, sound, tmp_path / f"alone{number}.mp4", seed=number, **QUICK)
    threads = [
        threading.Thread(
            target=lipsync.run, args=(*clip, tmp_path / f"beside{number}.mp4"), kwargs={"seed": number, **QUICK}
        )
        for number, clip in enumerate(clips)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        alone, beside = (frames_of(tmp_path / f"{name}{number}.mp4") for name in ("alone", "beside"))
        assert np.array_equal(np.stack(alone), np.stack(beside))


@pytest.mark.parametrize("way", ["token", "asyncio", "close"])
def test_a_run_that_is_ended_leaves_nothing(
    lipsync: LipSync, clips: list[tuple[Path, Path]], tmp_path: Path, way: str
) -> None:
    output, token, begun = tmp_path / "out.mp4", CancelToken(), threading.Event()

    def progress(_: Progress) -> None:
        begun.set()
        if way == "token":
            token.cancel()
        elif way == "close":
            lipsync.close()

    async def cancelled() -> None:
        task = asyncio.create_task(lipsync.arun(*clips[0], output, progress=progress, **QUICK))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _left(tmp_path) == []  # by the time the task has ended

    if way == "asyncio":
        asyncio.run(cancelled())
        lipsync.run(*clips[0], output, **QUICK)  # the next job
        assert _left(tmp_path) == ["out.mp4"]
    else:
        with pytest.raises(Cancelled if way == "token" else EngineClosed):
            lipsync.run(*clips[0], output, progress=progress, cancel=token, **QUICK)
        assert _left(tmp_path) == []


def test_a_run_waits_for_the_memory_of_another_and_says_so(
    bundle128: Bundle, clips: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    """With room for one only, the second begins when the first has ended, and both are as alone."""
    begun, second_may_ask, together = threading.Event(), threading.Event(), list[int]()
    waits: dict[str, float] = {}

    def first_seen(_: Progress) -> None:
        begun.set()
        assert second_may_ask.wait(60)

    with LipSync.open(bundle128, "onnxruntime", run_memory=1) as opened:

        def second_seen(_: Progress) -> None:
            together.append(len(opened._runs.admission._taken))

        def run(name: str, clip: int, seen: Callable[[Progress], None]) -> None:
            waits[name] = opened.run(*clips[clip], tmp_path / f"{name}.mp4", progress=seen, **QUICK).waits["admission"]

        first = threading.Thread(target=run, args=("first", 0, first_seen))
        first.start()
        assert begun.wait(60)
        second = threading.Thread(target=run, args=("second", 1, second_seen))
        second.start()
        while not opened._runs.admission._waiting:
            threading.Event().wait(0.001)
        second_may_ask.set()
        first.join()
        second.join()
        opened.run(*clips[1], tmp_path / "alone.mp4", **QUICK)
    assert (tmp_path / "second.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert set(together) == {1}
    assert waits["first"] < waits["second"]


@pytest.mark.parametrize("way", ["token", "close"])
def test_a_run_that_waits_for_memory_can_be_ended(
    bundle128: Bundle, clips: list[tuple[Path, Path]], tmp_path: Path, way: str
) -> None:
    begun, go, token = threading.Event(), threading.Event(), CancelToken()
    raised: list[type[Exception]] = []

    def seen(_: Progress) -> None:
        begun.set()
        go.wait(60)

    lipsync = LipSync.open(bundle128, "onnxruntime", run_memory=1)

    def run(name: str, progress: ProgressCallback | None = None, cancel: CancelToken | None = None) -> None:
        try:
            lipsync.run(*clips[0], tmp_path / name, progress=progress, cancel=cancel, **QUICK)
        except (Cancelled, EngineClosed) as error:
            raised.append(type(error))

    first = threading.Thread(target=run, args=("first.mp4",), kwargs={"progress": seen})
    first.start()
    assert begun.wait(60)
    second = threading.Thread(target=run, args=("second.mp4",), kwargs={"cancel": token})
    second.start()
    while not lipsync._runs.admission._waiting:
        go.wait(0.001)
    if way == "token":
        token.cancel()
        second.join(60)
        assert raised == [Cancelled]
        go.set()
    else:
        threading.Timer(0, lipsync.close).start()
        second.join(60)
        assert raised == [EngineClosed]
        go.set()
    first.join(60)
    lipsync.close()
    assert not second.is_alive()
    assert _left(tmp_path) == (["first.mp4"] if way == "token" else [])


def test_the_bench_of_clients_and_a_result_that_is_another(
    lipsync: LipSync, clips: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    options, clip = SamplingOptions(steps=1, guidance=1.0), (str(clips[0][0]), str(clips[0][1]))
    said: list[str] = []
    rows = client_rows(lipsync, clip, options, 3, 1, said.append)
    assert counts_to(8) == (1, 2, 4, 8)
    assert [row.clients for row in rows] == [1, 2, 3]
    assert said == [f"round 1: {count} client(s)" for count in (1, 2, 3)]
    frames = len(list(frames_of_run(lipsync, clip, tmp_path)))
    for row in rows:
        assert row.same
        assert row.frames_per_second == pytest.approx(row.clients * frames / row.seconds)
        assert row.gain == pytest.approx(row.clients * rows[0].seconds / row.seconds)
        assert 0 < row.first_frame <= row.seconds
        assert 0 < row.chunk_p50 <= row.chunk_p95 <= row.seconds
        assert 0 <= row.idle < 1

    class _Other:
        """Seeds the noise anew from the third run on."""

        runs = 0

        def run(self, *arguments: Any, **more: Any) -> Any:
            self.runs += 1
            video, sound, output, sampling = arguments
            changed = SamplingOptions(steps=1, guidance=1.0, seed=int(self.runs > 2))
            return lipsync.run(video, sound, output, changed if sampling else None, **more)

    wrong = client_rows(cast(LipSync, _Other()), clip, options, 2, 1, said.append)
    assert [row.same for row in wrong] == [True, False]


def frames_of_run(lipsync: LipSync, clip: tuple[str, str], folder: Path) -> list[Any]:
    """The frames that a run of the clip alone gives."""
    lipsync.run(*clip, folder / "alone.mp4", **QUICK)
    return list(frames_of(folder / "alone.mp4"))
