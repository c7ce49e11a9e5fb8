"""A worker that restarts, machines that never do, and one that was frozen and wakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lsx.serving.database import database_url
from lsx.serving.settings import ServeSettings
from tests.serving.served import Served, until
from tests.torture.harness import WORKER, Client, Table, fake_server, freeze, kind_of, outputs_of, tell

__all__ = ["takeovers"]


_LOOKS = 15  # seconds between two looks of the keeper for workers that are gone


def takeovers(table: Table, settings: ServeSettings, unseen: float, frozen: float) -> None:
    """Jobs of workers that are gone, or seem to be, for longer than `unseen` seconds; how long one is `frozen`."""
    settings = settings.model_copy(update={"workers": "cpu:1", "takeover_seconds": unseen})
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")
        job = client.submit(998)
        client.started(job["id"])
        served.kill(WORKER)
        began = time.monotonic()
        until(lambda: client.job(job["id"])["attempts"] == 2)
        seconds = time.monotonic() - began
        table.add("worker restarted", kind_of(settings), f"its job again after {seconds:.1f} s", fine=seconds < 5)
        client.ended(job["id"])
        other = settings.model_copy(update={"machine": "other"})
        _taken_over(table, other, 0, served, client)
        _taken_over(table, other, frozen, served, client)
        _cancelled(table, other, served, client)
        _ended_twice(table, settings, served, client)
        client.close()


@contextmanager
def _lone_worker(other: ServeSettings, served: Served, client: Client) -> Iterator[tuple[str, list[int]]]:
    """A job that another machine's worker has, whose supervisor is gone; the processes that are left there."""
    [own] = served.processes(WORKER)
    freeze(other, [own])  # so that the other machine's worker takes the job
    lone = other.data / f"alone-{time.monotonic_ns()}"
    lone.mkdir()
    (lone / "store").symlink_to(other.data / "store")
    alone = other.model_copy(update={"data": lone, "database": database_url(other.database, other.data)})
    command = [sys.executable, "-m", "tests.serving.fake_server", alone.model_dump_json(), "alone"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    job = client.submit(998)
    client.started(job["id"])
    os.kill(own, signal.SIGCONT)
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    children = [int(a) for a, b in (line.split() for line in listed.splitlines()[1:]) if int(b) == process.pid]
    process.kill()
    process.wait()
    try:
        yield str(job["id"]), children
    finally:
        tell(children, signal.SIGKILL)


def _taken_over(table: Table, other: ServeSettings, frozen: float, served: Served, client: Client) -> None:
    """frozen : seconds after which the worker wakes; 0 is never."""
    unseen = other.takeover_seconds
    with _lone_worker(other, served, client) as (job, children):
        if frozen:
            freeze(other, children)
        else:
            tell(children, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: client.job(job)["attempts"] == 2, unseen + 90)
        seconds = time.monotonic() - began
        if frozen:
            time.sleep(max(0, frozen - seconds))
            tell(children, signal.SIGCONT)
        client.ended(job)
        time.sleep(3 if frozen else 0)  # in which a second output would be published
    found = len(outputs_of(other, job))
    said = f"another worker's after {seconds:.0f} s (takeover_seconds {unseen:g}), {found} output, 2 starts"
    fine = seconds < unseen + 2 * _LOOKS and found == 1 and client.job(job)["attempts"] == 2
    check = f"worker frozen for {frozen:g} s" if frozen else "machine gone for ever"
    table.add(check, kind_of(other), said, fine=fine)


def _ended_twice(table: Table, settings: ServeSettings, served: Served, client: Client) -> None:
    """SIGTERM while a job runs, and again; the job is its worker's again after the next start."""
    job = client.submit(998)["id"]
    client.started(job)
    served.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    waits = served.process.poll() is None
    began = time.monotonic()
    served.end()
    seconds = time.monotonic() - began
    with fake_server(settings) as again:
        ended = again.ended(job)["status"]
    found = len(outputs_of(settings, job))
    fine = waits and seconds < 1 and (ended, found) == ("COMPLETED", 1)
    said = f"ends after {seconds:.1f} s; after a new start {ended}, {found} output"
    table.add("second SIGTERM", kind_of(settings), said, fine=fine)


def _cancelled(table: Table, other: ServeSettings, served: Served, client: Client) -> None:
    """A job of a frozen machine, cancelled before it is taken over, when the machine wakes after that."""
    with _lone_worker(other, served, client) as (job, children):
        freeze(other, children)
        at_once = client.ask("POST", f"/v1/jobs/{job}/cancel").json()["status"]
        time.sleep(other.takeover_seconds + _LOOKS + 5)
        tell(children, signal.SIGCONT)
        client.ended(client.submit(200)["id"])
        status, starts = client.job(job)["status"], client.job(job)["attempts"]
    found = len(outputs_of(other, job))
    fine = (at_once, status, starts, found) == ("CANCELED", "CANCELED", 1, 0)
    table.add("cancelled before takeover", kind_of(other), f"{status}, {starts} start, {found} outputs", fine=fine)
