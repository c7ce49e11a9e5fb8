"""Workers on a Ray cluster: an actor a GPU, whose body is the worker of `lsx serve worker`.

Ray finds the GPU and starts the actor again where it or its machine is lost. Which job is whose, DBOS decides, as
everywhere: the executors' names outlive their actors.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lsx.errors import EngineError, MissingDependency, UsageError
from lsx.serving.logs import logger
from lsx.serving.processes import started
from lsx.serving.settings import ServeSettings
from lsx.serving.supervisor import UNABLE, worker_names

__all__ = ["WorkerActor", "serve_on_ray", "settings_on_ray"]

_WORKER = "lsx.serving.worker"
_NAMESPACE = "lsx"
_FIRST_PAUSE, _LONGEST_PAUSE, _STEADY_SECONDS = 0.5, 30.0, 20.0
_KNOCK = 10.0  # seconds that a cluster has to answer
_LOOK = 0.5


class WorkerActor:
    """The body of an actor: one worker's process, which is started again when it ends."""

    def __init__(self, settings: str, name: str, module: str) -> None:
        """settings : ServeSettings as JSON. name : as gpu:0. module : what is run, `python -m` of it."""
        self._settings = ServeSettings.model_validate_json(settings)
        self._name, self._module = name, module
        self._child: subprocess.Popen[bytes] | None = None
        self._told = threading.Event()

    def work(self) -> int:
        """Keep a worker until told to drain. What its process ends with, where it cannot start, and else 0."""
        pause, starts = _FIRST_PAUSE, 0
        while not self._told.is_set():
            began, starts = time.monotonic(), starts + 1
            self._child = started(self._module, self._name, self._settings)
            if self._told.is_set():
                self._child.terminate()
            code = self._child.wait()
            if self._child.stdin is not None:
                self._child.stdin.close()
            if code == UNABLE and starts == 1:
                return code
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY_SECONDS else min(2 * pause, _LONGEST_PAUSE)
            self._told.wait(pause)
        return 0

    def drain(self) -> None:
        """Have the worker end when its job has ended, and start none again."""
        self._told.set()
        if self._child is not None:
            self._child.terminate()


def settings_on_ray(settings: ServeSettings) -> ServeSettings:
    """The settings as actors get them, wherever they run: paths from the root, and no machine's own name."""
    assert settings.bundle is not None  # noqa: S101
    machine = settings.machine if "machine" in settings.model_fields_set else "ray"
    paths = {"data": settings.data.absolute(), "bundle": settings.bundle.absolute()}
    return settings.model_copy(update={"machine": machine, **paths})


def serve_on_ray(settings: ServeSettings, address: str, actors: int | None = None, module: str = _WORKER) -> None:
    """Keep an actor for each worker until SIGTERM or SIGINT, when they drain; a second signal ends all at once.

    actors : how many, each with a GPU; default one for each GPU that the cluster has now, or as many as
    `settings.workers` has. module : the worker. Raises MissingDependency, UsageError where no cluster answers, and
    EngineError where a worker cannot start.
    """
    ray = _ray()
    told: list[int] = []
    with _connected(ray, address):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: told.append(number))
        names = _names(ray, settings.workers, actors, address)
        handles = {name: _actor(ray, settings, name, module) for name in names}
        logger().info("actors are asked for", address=address, workers=list(names))
        running = {handle.work.remote(): name for name, handle in handles.items()}
        try:
            _keep(ray, running, told)
        finally:
            _drain(ray, handles, running, settings.grace_seconds + 15, told)


def _ray() -> Any:
    """Ray, which sends nothing of its own. Raises MissingDependency."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependency.of("ray", "serve-ray") from error
    return ray


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Be a driver of the cluster until the block ends. Raises UsageError."""
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself knocks for minutes where nobody listens
            socket.create_connection((host, int(port)), _KNOCK).close()
        ray.init(address=address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"--address {address}: no Ray cluster answers there ({reason}). Start one: ray start --head, and give "
            "HOST:PORT"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _names(ray: Any, workers: str, actors: int | None, address: str) -> Sequence[str]:
    """The workers' names. Raises UsageError."""
    if workers != "auto":
        return worker_names(workers)
    count = int(ray.cluster_resources().get("GPU", 0)) if actors is None else actors
    if count == 0:
        raise UsageError(f"the Ray cluster at {address} has no GPU; give --actors for GPUs to come, or --workers cpu:N")
    return [f"gpu:{number}" for number in range(count)]


def _actor(ray: Any, settings: ServeSettings, name: str, module: str) -> Any:
    """Ask for a worker's actor, which comes when there is a place for it. Raises UsageError where there is one."""
    own = settings.model_copy(update={"data": settings.data / name.replace(":", "-"), "workers": "none"})
    needs = {"num_gpus": 1} if name.startswith("gpu:") else {}
    options = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2, "num_cpus": settings.threads or 1}
    asked = ray.remote(WorkerActor).options(name=f"{settings.machine}/{name}", **options, **needs)
    try:
        return asked.remote(json.dumps(own.model_dump(mode="json")), name, module)
    except ValueError as error:
        raise UsageError(
            f"the Ray cluster has an actor {settings.machine}/{name} already; end the other lsx serve on-ray, or give "
            "another --machine"
        ) from error


def _keep(ray: Any, running: dict[Any, str], told: Sequence[int]) -> None:
    """Return when told to end. Raises EngineError where a worker cannot start.

    running : the workers' names, by the calls that keep them, which end when a worker cannot start.
    """
    while running and not told:
        done, _ = ray.wait(list(running), timeout=_LOOK)
        for one in done:
            name = running.pop(one)
            if ray.get(one) == UNABLE:
                raise EngineError(f"{name} cannot start; Ray's log of its actor says why")


def _drain(ray: Any, handles: Mapping[str, Any], running: Mapping[Any, str], grace: float, told: Sequence[int]) -> None:
    """Tell all actors to drain, and wait as long as a worker may take; at another signal no longer."""
    asked = {handle.drain.remote(): name for name, handle in handles.items()}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_KNOCK)
    there = {asked[one] for one in answered}  # others wait for a GPU, and have no worker
    left, before, end = [call for call, name in running.items() if name in there], len(told), time.monotonic() + grace
    while left and len(told) == before and time.monotonic() < end:
        _, left = ray.wait(left, num_returns=len(left), timeout=_LOOK)
    for handle in handles.values():
        ray.kill(handle)
