"""A worker: one process with one LipSync, on one GPU or on the CPU, that renders one job at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lsx.bundle.bundle import Bundle
from lsx.engines.registry import EngineOptions
from lsx.errors import LsxError
from lsx.runtime.lipsync import LipSync
from lsx.serving.avatar_files import encoder_digest
from lsx.serving.database import database_url, engine_for
from lsx.serving.executor import drained_at_sigterm, launch
from lsx.serving.gpu_queue import GPU_QUEUE
from lsx.serving.heartbeat import beating, pause_of
from lsx.serving.job_steps import JobSteps
from lsx.serving.live.room import LiveRoom
from lsx.serving.logs import log_to_stderr, logger
from lsx.serving.processes import REPLACED, given_settings, named, ready_mark
from lsx.serving.settings import ServeSettings
from lsx.serving.store import store_at

__all__ = ["main", "work"]

_CONNECTIONS = 2
"""Kept to the database, which has as many for each of a thousand workers; more are made for a moment where needed."""


def work(settings: ServeSettings, name: str) -> None:
    """Render jobs as the worker `name` of this machine until SIGTERM. Raises LsxError where no bundle loads."""
    assert settings.bundle is not None  # noqa: S101
    executor = settings.executor(name)
    scratch = settings.data / "work" / name.replace(":", "-")
    shutil.rmtree(scratch, ignore_errors=True)
    mark = ready_mark(settings, name)
    mark.unlink(missing_ok=True)  # of one that was killed
    engine = engine_for(database_url(settings.database, settings.data), pool=_CONNECTIONS)
    store = store_at(settings.store, settings.data)
    options = EngineOptions(provider=settings.provider, threads=settings.threads)
    bundle = Bundle.open(settings.bundle)
    with LipSync.open(bundle, settings.backend, options, require_verified=settings.require_verified) as lipsync:
        lipsync.warm_up()
        steps = JobSteps(settings, engine, store, lipsync, scratch)
        launch(
            engine,
            executor,
            GPU_QUEUE,
            steps.register,
            poll=settings.poll_seconds,
            at_once=1,
            traces=settings.traces,
        )
        room = LiveRoom(lipsync, steps.avatars.ready_folder, settings.max_steps)
        live = room.open(settings.live_host) if settings.live else nullcontext()

        def facts() -> dict[str, Any]:
            return _facts(lipsync) | {"totals": steps.totals} | ({"live": room.facts()} if settings.live else {})

        with live, beating(engine, executor, "worker", facts, pause_of(settings.takeover_seconds)):
            logger().info("worker is ready", bundle=str(settings.bundle), backend=lipsync.backend)
            mark.touch()
            if (replaced := os.environ.get(REPLACED)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(int(replaced), signal.SIGTERM)
            drained_at_sigterm(settings.grace_seconds)
            mark.unlink(missing_ok=True)
    engine.dispose()
    logger().info("worker ends")


def _facts(lipsync: LipSync) -> dict[str, Any]:
    manifest = lipsync.bundle.manifest
    return {
        "bundle": Path(lipsync.bundle.path).name,
        "digest": hashlib.sha256(manifest.text().encode()).hexdigest()[:16],
        "encoder": encoder_digest(lipsync.bundle),
        "resolution": manifest.model.resolution,
        "backend": lipsync.backend,
        "precision": manifest.precision,
    }


def main() -> int:
    """Run with the settings on standard input, under the name in the first argument."""
    settings, name = given_settings(), sys.argv[1]
    log_to_stderr(settings.log_level, process=name, machine=settings.machine)
    try:
        with named(settings, name):
            work(settings, name)
    except LsxError as error:
        logger().error("the worker cannot start", error=str(error), code=error.exit_code)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
