"""The same work over many items: in this process, in several, or on a Ray cluster; whoever dies at it stops nothing."""

from __future__ import annotations

import logging
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import cv2

from lsx.errors import MissingDependency, UsageError

__all__ = ["DIED", "in_processes", "on_ray"]

DIED = "the process that worked on it died, every time"
"""What is said of an item at which a worker was killed: by a crash of a library, or for its memory."""

_ATTEMPTS = 2
"""Times that an item is tried in processes of this machine."""

_RETRIES = 3  # on Ray, where a machine may go, and it is not the item's fault
_AHEAD = 2  # items a core that Ray is given at once
_KNOCK = 10.0  # seconds that a cluster has to answer

_Item = TypeVar("_Item")


@dataclass(slots=True, eq=False)
class _Worker:
    """A process that works on one item at a time."""

    process: Any
    connection: Connection

    @classmethod
    def start(cls, work: Callable[[Any], None]) -> _Worker:
        context = get_context("spawn")  # not forked: this process may have threads of PyTorch, OpenCV and FFmpeg
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process is the end of the connection
        return cls(process, ours)

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, work: Callable[[Any], None]) -> None:
    """A worker's life: items come in, None or an error goes out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
    while True:
        try:
            item = connection.recv()
        except EOFError:  # also where the parent was killed
            return
        try:
            work(item)
        except Exception as error:
            connection.send(error)
        else:
            connection.send(None)


def in_processes(
    work: Callable[[_Item], None], items: Sequence[_Item], processes: int
) -> Iterator[tuple[_Item, str | None]]:
    """Do `work`, a function of a module, on every item. Yields items as they are done, each with None or with DIED.

    An error that `work` raises ends all, and is raised here.
    """
    waiting = deque((item, 1) for item in items)
    idle: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, _Item, int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < processes:
                worker = idle.pop() if idle else _Worker.start(work)
                try:
                    worker.connection.send(waiting[0][0])
                except OSError:  # it was killed while it had nothing to do
                    worker.stop()
                    continue
                busy[worker.connection] = (worker, *waiting.popleft())
            for connection in wait(list(busy)):
                worker, item, attempt = busy.pop(connection)
                try:
                    error = worker.connection.recv()
                except (EOFError, OSError):
                    worker.stop()
                    if attempt < _ATTEMPTS:
                        waiting.append((item, attempt + 1))
                    else:
                        yield item, DIED
                    continue
                idle.append(worker)
                if error is not None:
                    raise error
                yield item, None
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            worker.stop()


def on_ray(work: Callable[[_Item], None], items: Sequence[_Item], address: str) -> Iterator[tuple[_Item, str | None]]:
    """The same as tasks of a Ray cluster, one core each; those of a machine that is lost are done on another.

    Raises MissingDependency, and UsageError where no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency.of("ray", "ray") from error
    connected = ray.is_initialized()
    if not connected:
        _connect(ray, address)
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_on_a_core)
    waiting = deque(items)
    running: dict[Any, _Item] = {}
    try:
        while waiting or running:
            cores = max(int(ray.cluster_resources().get("CPU", 1)), 1)  # type: ignore[no-untyped-call]
            while waiting and len(running) < _AHEAD * cores:
                item = waiting.popleft()
                running[task.remote(work, item)] = item
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            item = running.pop(done)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError:
                yield item, DIED
                continue
            yield item, None
    finally:
        if not connected:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself knocks for eleven minutes where nobody listens
            socket.create_connection((host, int(port)), _KNOCK).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--ray {address}: no Ray cluster answers there ({reason}). Start one: ray start --head, and give host:port"
        ) from error


def _on_a_core(work: Callable[[Any], None], item: Any) -> None:
    cv2.setNumThreads(1)
    work(item)
