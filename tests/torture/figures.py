"""Times and rates of a server of fake workers, and the bound of its queue under many clients."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import sqlalchemy as sa

from lsx.serving.database import JOBS
from lsx.serving.settings import ServeSettings
from tests.torture.harness import Client, Table, database, fake_server, kind_of, unfinished

__all__ = ["bound", "figures"]


def figures(table: Table, settings: ServeSettings) -> None:
    """Times from enqueue to start when idle, and requests a second."""
    many = {"workers": "cpu:1", "max_queued": 10**6, "max_queued_per_key": 10**6, "poll_seconds": 0.1}
    settings = settings.model_copy(update=many)
    with fake_server(settings) as served, database(settings) as engine:
        client = Client(served, settings.data / "media")
        waits = []
        for number in range(30):
            job = client.submit(1000 * number)
            client.ended(job["id"])
            with engine.connect() as connection:
                row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job["id"])).one()
            waits.append((row.started_ms - row.created_ms) / 1000)
        p50, worst = statistics.median(waits), max(waits)
        told = f"p50 {p50:.2f} s, worst of 30 {worst:.2f} s"
        table.add("enqueue to start", kind_of(settings), told, fine=p50 < 0.3 and worst < 0.6)
        client.submit(999)  # ten seconds, in which the worker takes no other job
        asked = _Asked(client.port())
        with ThreadPoolExecutor(16) as pool:
            posts = _rate(pool, lambda number: asked("POST", "/v1/jobs", client.body(1000 * number)), 600)
            gets = _rate(pool, lambda _: asked("GET", f"/v1/jobs/{job['id']}"), 1200)
            same = list(pool.map(lambda _: client.submit(0, "same")["id"], range(64)))
        said = f"POST {posts[0]:.0f}/s, p99 {posts[1]:.2f} s; GET {gets[0]:.0f}/s, p99 {gets[1]:.2f} s; clients beside"
        table.add("requests", kind_of(settings), said, fine=posts[0] > 150 and posts[1] < 0.3 and gets[0] > 300)
        table.add("64 equal Idempotency-Keys", kind_of(settings), f"{len(set(same))} job", fine=len(set(same)) == 1)
        client.close()


class _Asked:
    """Requests on a connection that each thread keeps, as little work as can be: the server has the same two cores."""

    def __init__(self, port: int) -> None:
        self._port, self._own = port, threading.local()

    def __call__(self, method: str, path: str, content: Any = None) -> None:
        """Raises AssertionError for an answer that is none."""
        if not hasattr(self._own, "connection"):
            self._own.connection = HTTPConnection("127.0.0.1", self._port)
        body = None if content is None else json.dumps(content)
        self._own.connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self._own.connection.getresponse()
        told = answer.read()
        assert answer.status in (200, 202), told


def _rate(pool: ThreadPoolExecutor, work: Callable[[int], Any], count: int) -> tuple[float, float]:
    """Calls a second, and the 99th percentile of their seconds."""

    def timed(number: int) -> float:
        began = time.perf_counter()
        work(number)
        return time.perf_counter() - began

    began = time.perf_counter()
    seconds = sorted(pool.map(timed, range(count)))
    return count / (time.perf_counter() - began), seconds[int(0.99 * count)]


def bound(table: Table, settings: ServeSettings, most: int = 10) -> None:
    """32 clients at once, for a queue of ten places that a worker empties meanwhile."""
    settings = settings.model_copy(update={"workers": "cpu:1", "max_queued": most, "poll_seconds": 0.05})
    answers: Counter[int] = Counter()
    unsaid, seen, stop = [0], [0], threading.Event()
    with fake_server(settings) as served, database(settings) as engine:
        client = Client(served, settings.data / "media")

        def look() -> None:
            while not stop.is_set():
                with engine.connect() as connection:
                    seen[0] = max(seen[0], unfinished(connection))

        def ask(number: int) -> None:
            answer = client.once("POST", "/v1/jobs", json=client.body(1000 * number))
            answers[answer.status_code] += 1
            unsaid[0] += answer.status_code == 429 and not int(answer.headers.get("Retry-After", 0))

        watcher = threading.Thread(target=look)
        watcher.start()
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, range(640)))
        stop.set()
        watcher.join()
        client.close()
    said = f"640 requests of 32 clients: {dict(answers)}, at most {seen[0]} jobs at once for {most} places"
    fine = set(answers) == {202, 429} and seen[0] <= most and not unsaid[0]
    table.add("queue bound", kind_of(settings), said, fine=fine)
