"""A process of many executors, for scripts/scale_simulation.py: DBOS's claims, lsx's steps, and renders that sleep.

A worker of `lsx serve` is a process with one DBOS executor, of 85 MiB. Here hundreds of executors share a
process and its one DBOS instance: each looks for a job under a name of its own, with the calls of DBOS's own queue
thread, has it run by DBOS, and beats. What is a worker's own threads and connections, they share.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import random
import shutil
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from dbos._core import execute_dequeued_workflow
from dbos._utils import generate_uuid

from lsx.errors import Cancelled
from lsx.runtime.run_report import Progress, RunReport
from lsx.serving import heartbeat
from lsx.serving.database import database_url, engine_for
from lsx.serving.gpu_queue import APPLICATION, GPU_QUEUE, VERSION, dbos_client
from lsx.serving.job_steps import JobSteps
from lsx.serving.logs import log_to_stderr, logger
from lsx.serving.processes import given_settings
from lsx.serving.settings import ServeSettings
from lsx.serving.store import store_at

_AT_ONCE = 8
"""Looks and beats that are made at once: as many connections, beside those of running jobs."""
_REPORT_SECONDS = 10.0


class _SleepingLipSync:
    """Renders nothing for `seed` hundredths of a second, and writes 3200 bytes that the options decide."""

    bundle = SimpleNamespace(path="sleeping", sampling=None)

    def run(self, video: Path, audio: Path, output: Path, sampling: Any, **more: Any) -> RunReport:
        """Sleep, tell of it, and write. Raises Cancelled."""
        del video, audio
        end = time.monotonic() + sampling.seed / 100
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            if more["cancel"].cancelled:
                raise Cancelled("cancelled")
            more["progress"](Progress(frames=0, total=sampling.seed, fps=0.0))
        output.write_bytes(hashlib.sha256(str(sampling).encode()).digest() * 100)
        return RunReport(
            output=output, frames=sampling.seed, seconds=0, faceless=(), stages={}, waits={}, bottleneck=""
        )


class _Steps(JobSteps):
    """A job's steps without a look at media, which there is none of."""

    def _check_limits(self, inputs: Any, folder: Path) -> None: ...


class Executors:
    """Executors `MACHINE/N`, each of which claims and runs a job at a time."""

    def __init__(self, settings: ServeSettings, engine: sa.Engine, count: int) -> None:
        self._settings, self._engine = settings, engine
        self._dbos: Any = _launched(settings, engine)
        self._running: list[Future[Any] | None] = [None] * count
        self._looks = self._claims = self._errors = 0
        self._late = 0.0
        self._beat_pause = heartbeat.pause_of(settings.takeover_seconds)

    def work(self, stop: threading.Event) -> None:
        """Look for jobs and beat, each executor at its own time, until told to stop."""
        now, poll = time.monotonic(), self._settings.poll_seconds
        due: list[tuple[float, int, bool]] = []
        for number in range(len(self._running)):
            due.append((now + random.uniform(0, poll), number, False))
            due.append((now + random.uniform(0, 1), number, True))
        heapq.heapify(due)
        lock, reported = threading.Lock(), now
        room = threading.Semaphore(2 * _AT_ONCE)

        def done(at: float, number: int, beats: bool) -> None:
            try:
                (self._beat if beats else self._look)(number)
            except sa.exc.SQLAlchemyError as error:
                self._errors += 1
                logger().warning("the database did not answer", error=str(error).splitlines()[0])
            pause = self._beat_pause if beats else poll * random.uniform(0.95, 1.05)
            with lock:
                self._late = max(self._late, time.monotonic() - at)
                heapq.heappush(due, (time.monotonic() + pause, number, beats))
            room.release()

        with ThreadPoolExecutor(_AT_ONCE, "look") as pool:
            while not stop.is_set():
                now = time.monotonic()
                if now - reported > _REPORT_SECONDS:
                    self._report(now - reported)
                    reported = now
                with lock:
                    item = heapq.heappop(due) if due and due[0][0] <= now else None
                if item is None:
                    time.sleep(0.005)
                    continue
                room.acquire()
                pool.submit(done, *item)

    def _report(self, seconds: float) -> None:
        line = {
            "busy": sum(future is not None and not future.done() for future in self._running),
            "looks_a_second": round(self._looks / seconds, 1),
            "claims_a_second": round(self._claims / seconds, 1),
            "late_seconds": round(self._late, 2),
            "errors": self._errors,
        }
        with (self._settings.data / f"executors-{self._settings.machine}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._looks = self._claims = 0
        self._late = 0.0

    def _name(self, number: int) -> str:
        return self._settings.executor(str(number))

    def _beat(self, number: int) -> None:
        heartbeat._beat(self._engine, self._name(number), "worker", {"totals": {}})

    def _look(self, number: int) -> None:
        """What DBOS's queue thread does each time: read the queue's row, claim, read what was claimed, run it."""
        system = self._dbos._sys_db
        self._looks += 1
        queue = system.get_queue(GPU_QUEUE)
        future = self._running[number]
        if queue is None or (future is not None and not future.done()):
            return
        owner = generate_uuid()
        ids, _ = system.start_queued_workflows(queue, self._name(number), VERSION, None, 0, owner_xid=owner)
        for status in system.get_workflow_statuses(ids):
            self._claims += 1
            handle: Any = execute_dequeued_workflow(self._dbos, status, owner)
            self._running[number] = handle.future


def _launched(settings: ServeSettings, engine: sa.Engine) -> DBOS:
    """DBOS as `lsx.serving.executor.launch` starts it, but without a thread on the queue of jobs."""
    scratch = settings.data / "work" / settings.machine
    shutil.rmtree(scratch, ignore_errors=True)
    lipsync: Any = _SleepingLipSync()
    steps = _Steps(settings, engine, store_at(settings.store, settings.data), lipsync, scratch)
    config = DBOSConfig(
        name=APPLICATION,
        application_version=VERSION,
        executor_id=settings.machine,
        system_database_engine=engine,
        serializer=DBOSPortableJSONSerializer(),
        run_migrations=False,
        use_listen_notify=False,
        log_level="WARNING",
    )
    instance = DBOS(config=config)
    steps.register()
    DBOS.listen_queues([])
    dbos_client(engine).register_queue(GPU_QUEUE, worker_concurrency=1, polling_interval_sec=settings.poll_seconds)
    DBOS.launch()
    return instance


def main() -> None:
    """Be so many executors as the argument says, each `MACHINE/N`, until the one that started this ends."""
    settings, count, connections = given_settings(), int(sys.argv[1]), int(os.environ["LSX_CONNECTIONS"])
    log_to_stderr("WARNING", process="executors", machine=settings.machine)
    engine = engine_for(database_url(settings.database, settings.data), pool=connections)
    Executors(settings, engine, count).work(threading.Event())


if __name__ == "__main__":
    main()
