"""Two hundred event streams of one job: how old is the progress that they show?"""

from __future__ import annotations

import asyncio
import json
import time

from lsx.serving.settings import ServeSettings
from tests.torture.harness import Client, Table, fake_server, kind_of

__all__ = ["streams"]

_MOST_SECONDS = 1.5


def streams(table: Table, settings: ServeSettings, count: int = 200, seed: int = 998) -> None:
    """Every stream, the age of what it shows just before the next event; the fake worker's `fps` is its clock."""
    settings = settings.model_copy(update={"workers": "cpu:1", "max_event_streams": count})
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")
        job = client.submit(seed)["id"]
        client.started(job)
        found = asyncio.run(_watched(client.port(), job, count))
        more = client.once("GET", "/v1/jobs").status_code
        client.close()
    ages = sorted(age for stream in found for age in stream)
    ended = sum(bool(stream) for stream in found)
    median, worst = ages[len(ages) // 2], ages[-1]
    said = f"{ended} streams, {len(ages)} events; progress {median:.2f} s old before the next, at worst {worst:.2f} s"
    fine = ended == count and worst <= _MOST_SECONDS and more == 200
    table.add(f"{count} event streams", kind_of(settings), said, fine=fine)


async def _watched(port: int, job: str, count: int) -> list[list[float]]:
    return list(await asyncio.gather(*(_ages(port, job) for _ in range(count))))


async def _ages(port: int, job: str) -> list[float]:
    """Seconds for which each state's progress was shown, from when it was so to when the next one came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    ages, shown = [], None
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        state, now = json.loads(line[6:]), time.time()
        if shown is not None:
            ages.append(now - shown)
        if state["completed_at"] is not None:
            break
        shown = (state["progress"] or {}).get("fps") or shown
    writer.close()
    return ages
