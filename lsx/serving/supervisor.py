"""The supervisor: starts the processes of one machine, starts again what ends, and passes signals on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from lsx.errors import EngineError, OutputError, UsageError
from lsx.serving.logs import logger
from lsx.serving.processes import REPLACED, started, supervising
from lsx.serving.settings import ServeSettings

__all__ = ["UNABLE", "Place", "Supervisor", "migrated", "places_of", "worker_names"]

_TICK = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 20.0  # a process that lived longer is started again at once when it ends
_WORKER = "lsx.serving.worker"
UNABLE = 3
"""What a process ends with that cannot start: a bundle that does not load, a taken port. The first time it ends all."""


@dataclass(slots=True)
class Place:
    """A process that there is to be."""

    module: str
    """What is run: `python -m` of it."""
    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    starts: int = 0
    began: float = 0.0
    pause: float = _FIRST_PAUSE
    due: float = 0.0
    renewed: bool = False
    """Whether SIGHUP puts a new one in its place: the workers, which hold a bundle."""
    before: tuple[str, subprocess.Popen[bytes]] | None = None
    """Name and process of the worker that this one is to replace, until it ends."""


def worker_names(workers: str) -> list[str]:
    """The names of the workers that `workers` asks for, as gpu:0 or cpu:0. Raises UsageError."""
    if workers == "auto":
        gpus = _gpus()
        return [f"gpu:{number}" for number in range(gpus)] or ["cpu:0"]
    if workers == "none":
        return []
    kind, _, number = workers.partition(":")
    if kind == "cpu" and number.isdigit() and int(number) > 0 and "," not in workers:
        return [f"cpu:{place}" for place in range(int(number))]
    names = workers.split(",")
    if all(name.startswith("gpu:") and name[4:].isdigit() for name in names) and len(set(names)) == len(names):
        return names
    raise UsageError(f"workers is {workers!r}; give auto, none, cpu:N, or GPUs as gpu:0,gpu:1")


def _gpus() -> int:
    """How many GPUs the driver tells of."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0


def places_of(settings: ServeSettings, *, http: bool) -> list[Place]:
    """The processes of this machine; without `http` the workers alone. Raises UsageError."""
    workers = [
        Place(_WORKER, name, {"CUDA_VISIBLE_DEVICES": name[4:]} if name.startswith("gpu:") else {}, renewed=True)
        for name in worker_names(settings.workers)
    ]
    return (
        [Place("lsx.serving.keeper", "keeper"), Place("lsx.serving.http_process", "http"), *workers]
        if http
        else workers
    )


class Supervisor:
    """Keeps the places filled until SIGTERM or SIGINT; a second one ends all at once. SIGHUP renews the workers."""

    def __init__(self, settings: ServeSettings, places: Sequence[Place]) -> None:
        self._settings, self._places = settings, list(places)
        self._signals: list[int] = []

    def run(self) -> None:
        """Work until told to end. Raises UsageError where another one has this machine's names, EngineError where a
        process cannot start."""
        with supervising(self._settings):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._told)
            try:
                while self._turn():
                    time.sleep(_TICK)
            finally:
                self._end()

    def _told(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _turn(self) -> bool:
        """One look at all places; False when it is time to end."""
        while self._signals:
            if self._signals.pop(0) != signal.SIGHUP:
                return False
            self._renew()
        now = time.monotonic()
        for place in self._places:
            self._see_to(place, now)
        return True

    def _see_to(self, place: Place, now: float) -> None:
        if place.before is not None and _has_ended(place.before[1]):
            place.before = None
        if place.child is not None and not _has_ended(place.child):
            if now - place.began > _STEADY_SECONDS:
                place.pause = _FIRST_PAUSE
            return
        if place.child is not None:
            code, place.child = place.child.returncode, None
            self._ended(place, code, now)
        if place.child is None and now >= place.due:
            self._start(place, now)

    def _start(self, place: Place, now: float) -> None:
        """Start the process of a place, which tells the one that it replaces to drain once it is ready."""
        replaced = {} if place.before is None else {REPLACED: str(place.before[1].pid)}
        place.child = started(place.module, place.name, self._settings, {**place.environment, **replaced})
        place.began, place.starts = now, place.starts + 1

    def _ended(self, place: Place, code: int | None, now: float) -> None:
        """Decide what comes after a process that ended. Raises EngineError."""
        if code == UNABLE and place.before is not None:
            logger().error("the new worker cannot start; the old one goes on", name=place.name)
            (place.name, place.child), place.before = place.before, None
            return
        if code == UNABLE and place.starts == 1:
            raise EngineError(f"{place.name} cannot start; the line of the log before this says why")
        logger().warning("a process ended", name=place.name, code=code, pause=place.pause)
        place.due, place.pause = now + place.pause, min(2 * place.pause, _LONGEST_PAUSE)

    def _renew(self) -> None:
        """Start a new worker beside each old one, which it tells to drain once it has loaded its bundle."""
        for place in self._places:
            old = place.child
            if not place.renewed or old is None or place.before is not None:
                continue
            place.before = (place.name, old)
            place.name = place.name.removesuffix("+") if place.name.endswith("+") else f"{place.name}+"
            self._start(place, time.monotonic())

    def _children(self) -> Iterator[subprocess.Popen[bytes]]:
        for place in self._places:
            if place.child is not None:
                yield place.child
            if place.before is not None:
                yield place.before[1]

    def _end(self) -> None:
        """Pass the signal on and wait for all, as long as a worker may take to drain; a second signal to end kills."""
        for child in self._children():
            if child.poll() is None:
                child.terminate()
        until = time.monotonic() + self._settings.grace_seconds + 15
        while not all(_has_ended(child) for child in self._children()):
            if any(number != signal.SIGHUP for number in self._signals) or time.monotonic() > until:
                for child in self._children():
                    if child.poll() is None:
                        child.kill()
            time.sleep(_TICK)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has; then nothing of it is left."""
    if child.poll() is None:
        return False
    if child.stdin is not None:
        child.stdin.close()
    return True


def migrated(settings: ServeSettings) -> None:
    """Make the database ready, in a child: no process that serves changes tables. Raises OutputError."""
    with started("lsx.serving.migration", "migration", settings) as child:
        code = child.wait()
    if code != 0:
        raise OutputError("the database cannot be made ready; the log says why")
