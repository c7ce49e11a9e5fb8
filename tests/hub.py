"""A stand-in of the model hub on this machine: what `lsx fetch` asks of it, and what goes wrong there."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Hub", "hub_of"]

COMMIT = "0" * 39 + "1"


class Hub:
    """Files by repository and name. `lies`: names whose hash is told wrong; `cut`: bytes after which one breaks off."""

    def __init__(self, files: dict[str, dict[str, Path]]) -> None:
        self.files = files
        self.lies: set[str] = set()
        self.cut: dict[str, int] = {}
        self.slow: dict[str, float] = {}
        """Seconds that pass after the half of a file."""
        self.served: list[tuple[str, int]] = []
        """Names and the byte from which each was asked for."""
        self.endpoint = ""


@contextmanager
def hub_of(files: dict[str, dict[str, Path]]) -> Iterator[Hub]:
    """The stand-in, serving at `endpoint` during the block."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return None

        def _json(self, content: Any, code: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if code == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0].strip("/")
            if path.startswith("api/models/"):
                repository = "/".join(path.split("/")[2:4])
                self._listing(repository)
                return
            owner, name, _resolve, _revision, *rest = path.split("/")
            file = hub.files.get(f"{owner}/{name}", {}).get("/".join(rest))
            if file is None:
                self._json({"error": "not found"}, 404)
                return
            self._content(file, "/".join(rest))

        def _listing(self, repository: str) -> None:
            if repository not in hub.files:
                self._json({"error": "not found"}, 404)
                return
            siblings = []
            for name, file in hub.files[repository].items():
                content = file.read_bytes()
                entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": "b" * 40}
                if not name.endswith(".json"):
                    digest = "f" * 64 if name in hub.lies else hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
                siblings.append(entry)
            self._json({"id": repository, "sha": COMMIT, "siblings": siblings})

        def _content(self, file: Path, name: str) -> None:
            content = file.read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            hub.served.append((name, start))
            stop = hub.cut.pop(name, None)
            half = max(start, len(content) // 2)
            self.wfile.write(content[start:half] if stop is None else b"")
            time.sleep(hub.slow.get(name, 0.0))
            self.wfile.write(content[half:] if stop is None else content[start:stop])
            if stop is not None:
                self.wfile.flush()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
