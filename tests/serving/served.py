"""A whole `lsx serve` as a user starts it, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx

_T = TypeVar("_T")


def until(look: Callable[[], _T | None], seconds: float = 60) -> _T:
    """What `look` gives, once it gives something."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"nothing in {seconds} s"
        time.sleep(0.05)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of a server on this machine that answers as `handler` does."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Served:
    """A server that was started, and its API."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, before: int) -> None:
        """before : bytes of the log that are of another server."""
        self.process, self.log, self._before = process, log, before
        port = until(lambda: next((line["port"] for line in self.lines() if line.get("event") == "listening"), None))
        self.url = f"http://127.0.0.1:{port}"
        self.api = httpx.Client(base_url=self.url, timeout=60)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; what is no JSON is left out."""
        text = self.log.read_bytes()[self._before :].decode()
        assert self.process.poll() is None, text[-2000:]
        found = []
        for line in text.splitlines():
            with suppress(ValueError):  # no JSON, as the end of a line whose process was killed
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]

    def ready(self) -> Served:
        """Wait for a worker."""
        until(lambda: self.api.get("/v1/health/ready").status_code == 200)
        return self

    def upload(self, path: Path) -> str:
        """An asset's id."""
        answer = self.api.post("/v1/assets", params={"filename": path.name}, content=path.read_bytes())
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def submit(self, video: str, audio: str, **more: Any) -> dict[str, Any]:
        """A job of uploads."""
        inputs = [{"type": "video", "asset_id": video}, {"type": "audio", "asset_id": audio}]
        answer = self.api.post("/v1/jobs", json={"input": inputs, "options": {"steps": 1}} | more)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def job(self, number: str) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = self.api.get(f"/v1/jobs/{number}").json()
        return found

    def ended(self, number: str) -> dict[str, Any]:
        """When it has ended."""
        until(lambda: self.job(number)["completed_at"])
        return self.job(number)

    def processes(self, module: str) -> list[int]:
        """Numbers of the server's processes that run a module."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
        return [int(pid) for pid, parent, text in rows if int(parent) == self.process.pid and f"-m {module}" in text]

    def kill(self, module: str) -> None:
        """End its processes of a module as a crash does."""
        for number in self.processes(module):
            os.kill(number, signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and wait."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(bundle: Path, data: Path, *arguments: str) -> Iterator[Served]:
    """Start `lsx serve` on a free port; ended in the end, whatever happens."""
    data.mkdir(parents=True, exist_ok=True)
    log = data / "log"
    log.touch()
    before = log.stat().st_size
    command = [sys.executable, "-m", "lsx", "serve", str(bundle), "--data", str(data), "--port", "0", "--threads", "1"]
    with log.open("ab") as file:
        process = subprocess.Popen([*command, "--workers", "cpu:1", *arguments], stderr=file, stdout=file)
    served = None
    try:
        served = Served(process, log, before)
        yield served
    finally:
        if served is not None:
            served.api.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                process.wait(20)
