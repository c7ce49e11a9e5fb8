"""Runs of files at once, cancelled and closed: pictures as alone, and nothing left in the folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import CancelToken, LipSync
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import Cancelled, EngineClosed
from lsx.runtime.run_report import Progress
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
