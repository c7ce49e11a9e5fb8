"""Stage 8: a server with a worker on the GPU: a job, a live session from a client's side, and Triton where it is."""

from __future__ import annotations

import asyncio
import queue
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.serving.client import AsyncClient, Client
from lsx.serving.client.live import LivePicture
from scripts.gpu.bench import lsx_command, runnable
from scripts.gpu.checks import Checks, Skipped
from scripts.gpu.models import bundles_of
from scripts.gpu.stage import Settings

__all__ = ["run"]

_UTTERANCES = 20


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 8."""
    folder = settings.folder
    video = write_clip(folder / "face.mp4", portrait_frames(50))
    sound = write_wav(folder / "speech.wav", speech(4.0))
    for name, bundle, _ in bundles_of(checks, settings):
        for backend in ("tensorrt", "tensorrt-rtx"):
            checks.run(f"serve, {backend}, {name}", _served, bundle, backend, (video, sound), folder)
            checks.run(f"triton, {backend}, {name}", _in_triton, bundle, backend, (video, sound), folder)


def _served(bundle: Bundle, backend: str, clip: tuple[Path, Path], folder: Path) -> dict[str, Any]:
    runnable(bundle, backend)
    data = folder / f"serve-{backend}-{bundle.path.name}"
    with server(bundle, data, "--workers", "gpu:0", "--backend", backend) as address:
        return {"job": job_seconds(address, clip), "live": asyncio.run(live_seconds(address, clip[0], _UTTERANCES))}


@contextmanager
def server(bundle: Bundle, data: Path, *options: str) -> Iterator[str]:
    """The address of an `lsx serve` that lasts until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lsx", "serve", str(bundle.path), "--data", str(data), "--port", str(port)]
    process = subprocess.Popen([*command, *options])  # noqa: S603
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(120)


def job_seconds(address: str, clip: tuple[Path, Path]) -> str:
    """What a job took, from its upload to its end."""
    began = time.perf_counter()
    with Client(address, patience=600) as client:
        job = client.wait(client.submit(*clip))
    if job.status != "COMPLETED":
        raise RuntimeError(f"the job is {job.status}: {job.error}")
    return f"{time.perf_counter() - began:.2f} s from file to file, the worker's start included"


async def live_seconds(address: str, video: Path, utterances: int) -> str:
    """Utterances of a chunk: from the last sample being sent to the first spoken picture, as a client sees it."""
    seconds = []
    async with AsyncClient(address, patience=600) as client:
        avatar = await client.prepare_avatar(video)
        while avatar.status != "READY":
            if avatar.status == "FAILED":
                raise RuntimeError(f"the avatar failed: {avatar.error}")
            await asyncio.sleep(0.2)
            avatar = await client.avatar(avatar.id)
        async with client.live(avatar) as live:
            pictures = aiter(live)
            for _ in range(utterances):
                await live.say(speech(0.64))
                await live.end()
                seconds.append(await _first_picture(pictures))
    p50, p95 = np.percentile(seconds, [50, 95])
    return f"{utterances} utterances, sound sent to first picture p50 {1e3 * p50:.0f}, p95 {1e3 * p95:.0f} ms"


async def _first_picture(pictures: AsyncIterator[LivePicture]) -> float:
    """Seconds to the first spoken picture; returns after the utterance's last."""
    said, first = time.perf_counter(), 0.0
    async for picture in pictures:
        if picture.speaking and not first:
            first = time.perf_counter() - said
        if picture.last:
            return first
    raise RuntimeError("the session ended in the midst of an utterance")


def _in_triton(bundle: Bundle, backend: str, clip: tuple[Path, Path], folder: Path) -> str:
    """A file through Triton's own server, where one is on the path: inside NVIDIA's container."""
    runnable(bundle, backend)
    binary = shutil.which("tritonserver")
    if binary is None:
        raise Skipped("no tritonserver on the path; run this stage in NVIDIA's Triton container")
    from tritonclient.grpc import InferenceServerClient, InferInput

    models = folder / f"triton-{backend}-{bundle.path.name}"
    lsx_command("triton", "export", str(bundle.path), "-o", str(models), "--gpus", "0", "--backend", backend)
    process = subprocess.Popen([binary, "--model-repository", str(models)])  # noqa: S603
    try:
        client = InferenceServerClient("127.0.0.1:8001")
        until = time.monotonic() + 600
        while not _is_ready(client):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError("the server has no model that is ready")
            time.sleep(1)
        contents = (clip[0].read_bytes(), clip[1].read_bytes(), b"{}")
        inputs = []
        for name, content in zip(("VIDEO", "AUDIO", "OPTIONS"), contents, strict=True):
            inputs.append(InferInput(name, [1], "BYTES"))
            inputs[-1].set_data_from_numpy(np.array([content], object))
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("latentsync", inputs, enable_empty_final_response=True)
        return f"{_frames_of(answers)} frames"
    finally:
        process.terminate()
        process.wait(120)


def _is_ready(client: Any) -> bool:
    try:
        return bool(client.is_model_ready("latentsync"))
    except Exception:
        return False


def _frames_of(answers: queue.Queue[tuple[Any, Any]]) -> int:
    """Frames of all responses until the final one."""
    frames = 0
    while True:
        result, error = answers.get(timeout=600)
        if error is not None:
            raise RuntimeError(str(error))
        made = result.as_numpy("FRAMES")
        frames += 0 if made is None else len(made)
        if result.get_response().parameters["triton_final_response"].bool_param:
            return frames
