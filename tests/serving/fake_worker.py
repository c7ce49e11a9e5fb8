"""A worker whose runs cost nothing: what is tested with it are the jobs, in thousands, and what survives which kill."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lsx.errors import Cancelled
from lsx.runtime.run_report import Progress, RunReport
from lsx.serving.database import database_url, engine_for
from lsx.serving.executor import drained_at_sigterm, launch
from lsx.serving.gpu_queue import GPU_QUEUE
from lsx.serving.heartbeat import beating
from lsx.serving.job_steps import JobSteps
from lsx.serving.logs import log_to_stderr
from lsx.serving.processes import given_settings, named
from lsx.serving.settings import ServeSettings
from lsx.serving.store import store_at

_FRAME = 0.02


class _FakeLipSync:
    """Makes a file of bytes that its options decide, `seed` hundredths of a second long.

    Its rate is the clock: who sees its progress sees how old that is. No run ends while `hold` is there.
    """

    bundle = SimpleNamespace(path="fake", sampling=None)

    def __init__(self, hold: Path) -> None:
        self._hold = hold

    def run(self, video: Path, audio: Path, output: Path, sampling: Any, **more: Any) -> RunReport:
        del video, audio
        frames = sampling.seed % 1000 // 2
        for frame in range(frames):
            time.sleep(_FRAME)
            if more["cancel"].cancelled:
                raise Cancelled("cancelled")
            more["progress"](Progress(frames=frame, total=frames, fps=time.time()))
        while self._hold.exists():
            time.sleep(_FRAME)
        output.write_bytes(hashlib.sha256(str(sampling).encode()).digest() * 100)
        return RunReport(output=output, frames=frames, seconds=0, faceless=(), stages={}, waits={}, bottleneck="")


class _FakeSteps(JobSteps):
    """Steps without media."""

    def _check_limits(self, inputs: Any, folder: Path) -> None: ...


def main() -> None:
    """Work under the name in the first argument."""
    settings, name = given_settings(), sys.argv[1]
    log_to_stderr(settings.log_level, process=name, machine=settings.machine)
    with named(settings, name):
        _work(settings, name)


def _work(settings: ServeSettings, name: str) -> None:
    scratch = settings.data / "work" / name.replace(":", "-")
    shutil.rmtree(scratch, ignore_errors=True)
    engine = engine_for(database_url(settings.database, settings.data), pool=2)
    lipsync: Any = _FakeLipSync(settings.data / "hold")
    steps = _FakeSteps(settings, engine, store_at(settings.store, settings.data), lipsync, scratch)
    executor = settings.executor(name)
    launch(engine, executor, GPU_QUEUE, steps.register, poll=settings.poll_seconds, at_once=1)
    with beating(engine, executor, "worker", dict, pause=1.0):
        drained_at_sigterm(settings.grace_seconds)


if __name__ == "__main__":
    main()
