"""What is measured in a process of its own: a cold start, a clip from file to file, a long run. Prints one JSON line.

`python -m lsx.bench.child TASK`, where TASK is JSON; `run_child` does that. So that a cold start is cold, and peak
memory is that of a serving process and not of a bench with PyTorch in it.
"""

from __future__ import annotations

import json
import sys
import time

_STARTED = time.time()

import os  # noqa: E402  (what a serving process imports is timed)
import resource  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from lsx.engines.device import DeviceEngine  # noqa: E402
from lsx.errors import LsxError  # noqa: E402
from lsx.runtime.alignment import Face  # noqa: E402
from lsx.runtime.lipsync import LipSync  # noqa: E402
from lsx.runtime.report import Progress  # noqa: E402
from lsx.specs import SampleOptions  # noqa: E402

__all__ = ["run_child"]

_IMPORTED = time.time()
_HEIGHT, _WIDTH = 720, 1280
_FOREVER = 10**8  # frames
_POINTS = np.array([[-0.5, -0.45], [0.5, -0.43], [0.02, 0.45]]) * 150 + [640, 330]


def run_child(task: dict[str, Any], *, seen: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Do `task` in a new process. Raises LsxError with the line that the process ended with."""
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
        said = errors.read().strip().splitlines()
    if process.returncode or not lines:
        raise LsxError(said[-1] if said else f"the measuring process ended with {process.returncode}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


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


class _DeviceMemory:
    """What is taken on the device since it was made; None without one."""

    def __init__(self, lipsync: LipSync) -> None:
        engine = lipsync.engines["unet"]
        self._device = engine.device if isinstance(engine, DeviceEngine) else None

    def free(self) -> int | None:
        return None if self._device is None else self._device.free_bytes()


def _opened(task: dict[str, Any]) -> LipSync:
    return LipSync.open(
        task["bundle"],
        task["backend"],
        provider=task["provider"],
        threads=task["threads"],
        reference=task["reference"],
        trust_code=task["trust_code"],
    )


def _cold(task: dict[str, Any], options: SampleOptions) -> dict[str, Any]:
    steps = [("start Python, import lsx", _IMPORTED - task["spawned"])]
    clock = time.perf_counter
    start = clock()
    lipsync = _opened(task)
    steps.append(("open the bundle, hash and load engines", clock() - start))
    start = clock()
    lipsync.warm_up(options)
    steps.append(("take memory, warm up, capture", clock() - start))
    start = clock()
    results = lipsync.stream(
        _Frames(16), _sound(16 / 25), 16, options.steps, options.guidance, options.cache_interval, detector=_face
    )
    next(results)
    steps.append(("first frame", clock() - start))
    results.close()  # type: ignore[attr-defined]  # a generator
    lipsync.close()
    return {"steps": steps}


def _clip(task: dict[str, Any], options: SampleOptions) -> dict[str, Any]:
    with _opened(task) as lipsync:
        lipsync.warm_up(options)
        memory = _DeviceMemory(lipsync)
        times: list[float] = []
        free: list[int] = []

        def seen(progress: Progress) -> None:
            times.append(time.perf_counter())
            if progress.frames % 16 == 0:
                left = memory.free()
                free.extend([] if left is None else [left])
                print(f"# {progress.frames} of {progress.total} frames", flush=True)

        with tempfile.TemporaryDirectory(prefix="lsx-bench-") as folder:
            start = time.perf_counter()
            report = lipsync.run(
                task["video"],
                task["audio"],
                Path(folder) / "result.mp4",
                steps=options.steps,
                guidance=options.guidance,
                cache_interval=options.cache_interval,
                sampler=options.sampler,
                progress=seen,
            )
        return {
            "frames": report.frames,
            "seconds": report.seconds,
            "stages": report.stages,
            "at": [t - start for t in times],
            "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "free_device_bytes": free,
            "device_total": None if not free else _device_total(),
        }


def _device_total() -> int | None:
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    status, _free, total = runtime.cudaMemGetInfo()
    return int(total) if int(status) == 0 else None


def _long(task: dict[str, Any], options: SampleOptions) -> dict[str, Any]:
    at, host, device = [], [], []
    page = os.sysconf("SC_PAGE_SIZE")
    with _opened(task) as lipsync:
        memory = _DeviceMemory(lipsync)
        total = _device_total() if memory.free() is not None else None
        start = time.perf_counter()
        results = lipsync.stream(
            _Frames(_FOREVER),
            _sound(20),
            _FOREVER,
            options.steps,
            options.guidance,
            options.cache_interval,
            detector=_face,
            sampler=options.sampler,
        )
        for count, _ in enumerate(results, 1):
            if count % 16:
                continue
            at.append(time.perf_counter() - start)
            host.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
            free = memory.free()
            if free is not None and total is not None:
                device.append(total - free)
            print(f"# {count} frames, {at[-1]:.0f} of {task['duration']:.0f} s", flush=True)
            if at[-1] >= task["duration"]:
                break
        results.close()  # type: ignore[attr-defined]  # a generator
    return {"at": at, "host": host, "device": device, "frames": 16 * len(at)}


def _main() -> int:
    task = json.loads(sys.argv[1])
    options = SampleOptions(**task["options"])
    try:
        print(json.dumps({"cold": _cold, "clip": _clip, "long": _long}[task["kind"]](task, options)))
    except LsxError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
