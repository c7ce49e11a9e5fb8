"""Two gigabytes sent to a server that takes less: what its memory does, and what is left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from lsx.serving.settings import ServeSettings
from tests.torture.harness import HTTP, Client, Table, fake_server, kind_of

__all__ = ["uploads"]

_MOST_MIB = 200
_PIECE = 1 << 20


def uploads(table: Table, settings: ServeSettings, size: int = 2 << 30) -> None:
    """An upload a byte over the limit, without and with a Content-Length."""
    settings = settings.model_copy(update={"workers": "none", "max_upload_bytes": size - 1})
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")
        [process] = served.processes(HTTP)
        unsized = client.once("POST", "/v1/assets", content=_pieces(size), timeout=600).status_code
        sized = _sized(client.port(), size)
        peak = _peak_mib(process)
        kept = {client.video, client.audio}
        client.close()
    left = [path.name for path in settings.data.rglob("*") if path.is_file() and _is_upload(path, kept)]
    said = f"{size / 2**30:.2f} GiB sent: {unsized}; announced: {sized}; HTTP process at most {peak} MiB; left {left}"
    fine = (unsized, sized) == (413, 413) and peak < _MOST_MIB and not left
    table.add("upload over the limit", kind_of(settings), said, fine=fine)


def _pieces(size: int) -> Iterator[bytes]:
    piece = bytes(_PIECE)
    for _ in range(size // _PIECE):
        yield piece


def _sized(port: int, size: int) -> int:
    """The answer to the head of a request that says how long it is, before anything of it is sent."""
    with socket.create_connection(("127.0.0.1", port), 60) as asking:
        head = f"POST /v1/assets HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {size}\r\n\r\n"
        asking.sendall(head.encode())
        return int(asking.recv(64).split()[1])


def _peak_mib(process: int) -> int:
    """The most memory that a process has had."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def _is_upload(path: Path, kept: set[str]) -> bool:
    return path.parent.name in ("incoming", "uploads") and path.name not in kept
