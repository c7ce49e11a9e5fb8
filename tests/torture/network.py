"""Every connection that the processes of a server make in a whole job, as strace sees it."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.serving.settings import ServeSettings
from tests.serving.served import Served, until
from tests.torture.harness import Table, kind_of

__all__ = ["connections", "network"]

_CALLS = "connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(r'sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


def network(table: Table, settings: ServeSettings) -> None:
    """A job with a webhook on a real bundle; connections that leave this machine are none."""
    if shutil.which("strace") is None:
        table.add("connections", kind_of(settings), "not run: strace is not installed", fine=True)
        return
    settings.data.mkdir(parents=True)
    trace, bundle = settings.data / "strace", _bundle(settings.data)
    write_clip(settings.data / "face.mp4", portrait_frames(16))
    write_wav(settings.data / "speech.wav", speech(0.64))
    with _receiver() as (port, bodies), _traced(settings, bundle, trace) as served:
        served.ready()
        video, audio = served.upload(settings.data / "face.mp4"), served.upload(settings.data / "speech.wav")
        job = served.submit(video, audio, webhook_url=f"http://127.0.0.1:{port}/")
        status = served.ended(job["id"])["status"]
        served.api.get(f"/v1/jobs/{job['id']}/output").raise_for_status()
        until(lambda: len(bodies) == 1)
        served.api.close()
    found, outside = connections(trace.read_text(errors="replace"))
    said = f"job {status}, {dict(found)}; outside this machine: {sorted(outside) or 'none'}"
    fine = status == "COMPLETED" and not outside and found["loopback"] > 0
    table.add("connections", kind_of(settings), said, fine=fine)


def connections(text: str) -> tuple[Counter[str], set[str]]:
    """What strace wrote: how many calls name addresses of which kind, and the addresses outside this machine."""
    found: Counter[str] = Counter()
    outside = set()
    for line in text.splitlines():
        addresses = [first or second for first, second in _ADDRESS.findall(line)]
        for address in addresses:
            if ipaddress.ip_address(address).is_loopback:
                found["loopback"] += 1
            else:
                found["outside"] += 1
                outside.add(address)
        found["unix"] += "sa_family=AF_UNIX" in line
    return found, outside


def _bundle(folder: Path) -> Path:
    """A real bundle, as small as there is one."""
    from lsx.export.exporter import export_bundle
    from lsx.export.options import ExportOptions
    from lsx.models.checkpoint import Checkpoint
    from lsx.models.checkpoint_files import CheckpointFiles
    from lsx.models.random_checkpoint import random_checkpoint

    random_checkpoint(folder / "checkpoint", resolution=64, size="minimal")
    loaded = Checkpoint(CheckpointFiles.in_folder(folder / "checkpoint"))
    export_bundle(loaded, folder / "bundle", ExportOptions(precision="fp32"))
    return folder / "bundle"


@contextmanager
def _traced(settings: ServeSettings, bundle: Path, trace: Path) -> Iterator[Served]:
    """`lsx serve` with the calls of all of its processes in `trace`, as soon as they have ended."""
    log = settings.data / "log"
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", f"trace={_CALLS}", "-o", str(trace)]
    serve = [sys.executable, "-m", "lsx", "serve", str(bundle), "--data", str(settings.data), "--port", "0"]
    options = ["--threads", "1", "--workers", "cpu:1", "--allow-hook", "127.0.0.1", "--min-free-bytes", "0"]
    options += [] if settings.database is None else ["--database", settings.database]
    with log.open("wb") as file:
        process = subprocess.Popen([*strace, *serve, *options], stdout=file, stderr=file)
    try:
        yield Served(process, log, 0)
    finally:
        process.terminate()  # with -D this is lsx, and strace ends with it
        process.wait(60)
    until(lambda: not _traces(trace))


def _traces(trace: Path) -> bool:
    """Whether the strace that writes a file lives."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return any(line.startswith("strace") and str(trace) in line for line in listed.splitlines())


@contextmanager
def _receiver() -> Iterator[tuple[int, list[bytes]]]:
    """A webhook's receiver; its port, and what came."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.extend([body] if b"job.completed" in body else [])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
