"""A process in which DBOS runs workflows of one queue, until it is told to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

from lsx.errors import UsageError
from lsx.serving.gpu_queue import APPLICATION, VERSION, dbos_client
from lsx.serving.logs import logger

__all__ = ["as_step", "drained_at_sigterm", "launch"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def as_step(name: str, work: Callable[_P, _R]) -> Callable[_P, _R]:
    """`work`, a method, as a step of DBOS, which takes functions alone."""

    def step(*arguments: _P.args, **keywords: _P.kwargs) -> _R:
        return work(*arguments, **keywords)

    return DBOS.step(name=name)(step)


def launch(
    engine: sa.Engine,
    executor: str,
    queue: str,
    register: Callable[[], None],
    *,
    poll: float,
    at_once: int,
    traces: Sequence[str] = (),
) -> None:
    """Start DBOS as `executor` on `queue`, of which it runs `at_once` workflows; `register` declares them.

    traces : OTLP addresses that get a span of each workflow and step. Raises UsageError without OpenTelemetry.
    """
    if traces and find_spec("opentelemetry.sdk") is None:
        raise UsageError("traces need OpenTelemetry: pip install 'lsx[traces]'")
    for name in [name for name in os.environ if name.startswith("DBOS_")]:
        del os.environ[name]  # they would override what is said here
    config = DBOSConfig(
        name=APPLICATION,
        application_version=VERSION,
        executor_id=executor,
        system_database_engine=engine,
        serializer=DBOSPortableJSONSerializer(),
        run_migrations=False,
        use_listen_notify=False,  # nobody here waits for events: no connection for it, no word to every other worker
        log_level="WARNING",
        enable_otlp=bool(traces),
        otlp_traces_endpoints=list(traces),
    )
    DBOS(config=config)
    register()
    DBOS.listen_queues([queue])
    # Before the start: DBOS looks for queues once a second, and the first job would wait for that.
    dbos_client(engine).register_queue(queue, worker_concurrency=at_once, polling_interval_sec=poll)
    DBOS.launch()


def drained_at_sigterm(grace: float) -> None:
    """Return when SIGTERM or SIGINT came and the running workflows ended, or `grace` seconds have gone.

    A second signal ends the process at once: its workflows are started again by whoever has its name next.
    """
    told = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        if told.is_set():
            os._exit(1)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    while not told.wait(0.5):  # signals are seen by the main thread between waits
        pass
    logger().info("draining", grace=grace)
    drain = threading.Thread(target=_destroy, args=(grace,), name="drain", daemon=True)
    drain.start()
    while drain.is_alive():
        drain.join(0.5)


def _destroy(grace: float) -> None:
    options: Any = {"workflow_completion_timeout_sec": int(grace)}
    DBOS.destroy(**options)
