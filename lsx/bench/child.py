"""What is measured in a process of its own: a cold start, a clip, several clients, a long run. Prints one JSON line.

`python -m lsx.bench.child TASK`, where TASK is JSON; `run_child` does that. So that a cold start is cold, and peak
memory is that of a serving process and not of a bench with PyTorch in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.bench.clients import client_rows
from lsx.bench.live import live_timing
from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.errors import BackendUnavailable, BenchFailed, LsxError
from lsx.faces.alignment import Face
from lsx.media.video_reader import FPS
from lsx.runtime.frame_stream import FrameStream
from lsx.runtime.lipsync import LipSync
from lsx.runtime.run_report import Progress

__all__ = ["run_child"]

_IMPORTED = time.time()
_HEIGHT, _WIDTH = 720, 1280
_FOREVER = 10**8  # frames
_POINTS = np.array([[-0.5, -0.45], [0.5, -0.43], [0.02, 0.45]]) * 150 + [640, 330]


def run_child(task: dict[str, Any], *, seen: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Do `task` in a new process. Raises BenchFailed with the line that the process ended with."""
    task = task | {"spawned": time.time()}
    command = [sys.executable, "-m", "lsx.bench.child", json.dumps(task)]
    lines = []
    with (
        tempfile.TemporaryFile("w+") as errors,  # a pipe that nobody reads fills up
        subprocess.Popen(  # noqa: S603  (this interpreter, on this module)
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101
        try:
            for line in process.stdout:
                if line.startswith("#"):
                    seen(line[1:].strip())
                else:
                    lines.append(line)
        except BaseException:
            process.kill()
            raise
        process.wait()
        errors.seek(0)
        error_lines = errors.read().strip().splitlines()
    if process.returncode or not lines:
        raise BenchFailed(error_lines[-1] if error_lines else f"the measuring process ended: {process.returncode}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


class _Frames(Sequence[NDArray[np.uint8]]):
    """Synthetic frames 1280 x 720 that differ a little, made when they are asked for: none is kept."""

    def __init__(self, count: int) -> None:
        self._count = count
        y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
        self._base = np.stack([(x // 3 + y // 5 + 40 * c) % 256 for c in range(3)], -1).astype(np.uint8)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return np.roll(self._base, index % 64, axis=1)


def _sound(seconds: float) -> NDArray[np.int16]:
    t = np.arange(int(seconds * 16000)) / 16000
    return np.asarray(8000 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 3 * t), dtype=np.int16)


def _face(_frame: NDArray[np.uint8]) -> Face:
    return Face(points=_POINTS)


def _peak_bytes() -> int:
    """The most memory that this process had. Not getrusage's, which begins with the parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


class _DeviceMemory:
    """Bytes taken on the device since it was made, by whatever runs there: let nothing else run."""

    def __init__(self) -> None:
        self._before = self._free()

    @staticmethod
    def _free() -> int | None:
        try:
            from lsx.engines.cuda_device import shared_device

            return shared_device().free_bytes()
        except BackendUnavailable:
            return None

    def taken(self) -> list[int]:
        """One number, or none without a device."""
        now = self._free()
        return [] if now is None or self._before is None else [max(self._before - now, 0)]


def _opened(task: dict[str, Any], bundle: Bundle | None = None) -> LipSync:
    return LipSync.open(
        bundle or task["bundle"],
        task["backend"],
        provider=task["provider"],
        threads=task["threads"],
        checkpoint_dir=task["checkpoint_dir"],
        trust_code=task["trust_code"],
    )


def _streamed(
    lipsync: LipSync, options: SamplingOptions, frames: _Frames, sound: NDArray[np.int16], length: int
) -> FrameStream:
    return lipsync.stream(frames, sound, length, options, detector=_face)


def _cold(task: dict[str, Any], options: SamplingOptions) -> dict[str, Any]:
    steps = [("start Python, import lsx", _IMPORTED - task["spawned"])]
    clock = time.perf_counter
    start = clock()
    bundle = Bundle.open(task["bundle"])
    bundle.verify()
    steps.append(("open the bundle, hash its files", clock() - start))
    start = clock()
    lipsync = _opened(task, bundle)
    steps.append(("load engines", clock() - start))
    start = clock()
    prepared = lipsync.warm_up(options)
    steps.append(("take memory", clock() - start - sum(prepared.values())))
    steps.extend(prepared.items())
    start = clock()
    results = _streamed(lipsync, options, _Frames(16), _sound(16 / FPS), 16)
    next(results)
    steps.append(("first frame", clock() - start))
    results.close()
    lipsync.close()
    return {"steps": steps}


def _clip(task: dict[str, Any], options: SamplingOptions) -> dict[str, Any]:
    memory = _DeviceMemory()
    with _opened(task) as lipsync:
        lipsync.warm_up(options)
        times: list[float] = []
        taken: list[int] = []

        def seen(progress: Progress) -> None:
            if progress.frames == len(times):  # told of a step, not of a frame
                return
            times.append(time.perf_counter())
            if progress.frames % 16 == 0:
                taken.extend(memory.taken())
                print(f"# {progress.frames} of {progress.total} frames", flush=True)

        with tempfile.TemporaryDirectory(prefix="lsx-bench-") as folder:
            start = time.perf_counter()
            report = lipsync.run(
                task["video"],
                task["audio"],
                Path(folder) / "result.mp4",
                options,
                progress=seen,
            )
        return {
            "frames": report.frames,
            "seconds": report.seconds,
            "stages": report.stages,
            "at": [t - start for t in times],
            "peak_host_bytes": _peak_bytes(),
            "waits": report.waits,
            "device_bytes": taken,
        }


def _long(task: dict[str, Any], options: SamplingOptions) -> dict[str, Any]:
    at: list[float] = []
    host: list[int] = []
    device: list[int] = []
    memory = _DeviceMemory()
    with _opened(task) as lipsync:
        start = time.perf_counter()
        # Played back and forth: what is kept of a source frame does not grow.
        results = _streamed(lipsync, options, _Frames(1000), _sound(20), _FOREVER)
        for count, _ in enumerate(results, 1):
            if count % 16:
                continue
            at.append(time.perf_counter() - start)
            host.append(_resident_bytes())
            device += memory.taken()
            print(f"# {count} frames, {at[-1]:.0f} of {task['duration']:.0f} s", flush=True)
            if at[-1] >= task["duration"]:
                break
        results.close()
    return {"at": at, "host": host, "device": device, "frames": 16 * len(at)}


def _clients(task: dict[str, Any], options: SamplingOptions) -> dict[str, Any]:
    with _opened(task) as lipsync:
        lipsync.warm_up(options)
        clip, most, repeat = (task["video"], task["audio"]), task["most"], task["repeat"]
        rows = client_rows(lipsync, clip, options, most, repeat, lambda line: print(f"# {line}", flush=True))
    return {"rows": [row.model_dump() for row in rows]}


def _live(task: dict[str, Any], options: SamplingOptions) -> dict[str, Any]:
    with _opened(task) as lipsync:
        lipsync.warm_up(options)
        clip = (Path(task["video"]), Path(task["audio"]))
        timing = live_timing(lipsync, clip, options, task["repeat"], lambda line: print(f"# {line}", flush=True))
    return {"timing": timing.model_dump()}


def _resident_bytes() -> int:
    """Host memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _main() -> int:
    task = json.loads(sys.argv[1])
    options = SamplingOptions(**task["options"])
    try:
        kinds = {"cold": _cold, "clip": _clip, "clients": _clients, "live": _live, "long": _long}
        print(json.dumps(kinds[task["kind"]](task, options)))
    except LsxError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
