"""PostgreSQL ends hard in the midst of a job, and comes back."""

from __future__ import annotations

import time
from contextlib import suppress

import httpx

from lsx.serving.settings import ServeSettings
from tests.serving.served import until
from tests.torture.harness import Client, Postgres, Table, fake_server, kind_of, outputs_of

__all__ = ["outage"]


def outage(table: Table, settings: ServeSettings, server: Postgres, seconds: float = 20, seed: int = 998) -> None:
    """The database is away for `seconds`, or until HTTP has said so, while a job of `seed` hundredths runs."""
    settings = settings.model_copy(update={"workers": "cpu:1"})
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")

        def answer() -> int:
            with suppress(httpx.TransportError):
                return client.once("GET", "/v1/jobs").status_code
            return 0

        job = client.submit(seed)["id"]
        client.started(job)
        server.stop()
        began = time.monotonic()
        until(lambda: answer() == 503)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        still = answer()
        server.start()
        until(lambda: answer() == 200)
        back = time.monotonic() - began
        ended = client.ended(job)
        after = client.ended(client.submit(0)["id"])["status"]
        client.close()
    found = len(outputs_of(settings, job))
    said = (
        f"503 meanwhile, 200 after {back:.1f} s; the job {ended['status']}, {ended['attempts']} start, {found} output"
    )
    fine = (still, ended["status"], found, after) == (503, "COMPLETED", 1, "COMPLETED")
    table.add("database stopped in a job", kind_of(settings), said, fine=fine)
