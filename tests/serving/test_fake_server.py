"""Whole servers with workers that cost nothing: the order of jobs, cancelling, a database that goes away."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from lsx.serving.database import JOBS
from lsx.serving.settings import ServeSettings
from tests.torture.harness import WORKER, Client, Table, database, fake_server, freeze, outputs_of, postgres, tell
from tests.torture.network import connections
from tests.torture.outage import outage


def test_priorities_and_a_cancelled_job_of_a_frozen_worker(settings: ServeSettings) -> None:
    """Smaller priorities first, in the order of coming within one; what was cancelled meanwhile leaves nothing."""
    settings = settings.model_copy(update={"port": 0, "workers": "cpu:1", "poll_seconds": 0.05})
    with fake_server(settings) as served, database(settings) as engine:
        client = Client(served, settings.data / "media")
        first = client.submit(998)["id"]
        client.started(first)
        [worker] = served.processes(WORKER)
        freeze(settings, [worker])
        priorities = [9, 5, 1, 5, 1, 9]
        jobs = [client.submit(1000 * place, priority=priority)["id"] for place, priority in enumerate(priorities)]
        assert [client.job(job)["queue_position"] for job in jobs] == [5, 3, 1, 4, 2, 6]
        assert client.ask("POST", f"/v1/jobs/{first}/cancel").json()["status"] == "CANCELED"
        tell([worker], signal.SIGCONT)
        assert {client.ended(job)["status"] for job in jobs} == {"COMPLETED"}
        with engine.connect() as connection:
            begun = connection.execute(sa.select(JOBS.c.id).where(JOBS.c.id != first).order_by(JOBS.c.started_ms))
            order = list(begun.scalars())
        assert order == [job for _, job in sorted(zip(priorities, jobs, strict=True), key=lambda pair: pair[0])]
        assert client.job(first)["status"] == "CANCELED"
        client.close()
    assert {len(outputs_of(settings, job)) for job in jobs} == {1}
    assert outputs_of(settings, first) == []
    assert [path for path in (settings.data / "work").rglob("*") if path.is_file()] == []


def test_a_database_that_ends_in_the_midst_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 meanwhile; the job goes on, and its result is published once."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with postgres(tmp_path / "postgres") as server:
        address = server.address("lsx")
        settings = ServeSettings(data=tmp_path / "data", database=address, port=0, machine="test", min_free_bytes=0)
        table = Table()
        outage(table, settings, server, seconds=0, seed=150)
        assert table.fine, table.rows
    log = (settings.data / "log").read_text().splitlines()
    assert [line for line in log if not line.startswith("{")] == []
    assert any("connection" in line for line in log)


def test_what_strace_tells() -> None:
    lines = [
        'connect(3, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        'sendto(3, ""..., 9, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16) = 9',
        'connect(3, {sa_family=AF_INET6, sin6_port=htons(9), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 0',
        'connect(3, {sa_family=AF_INET6, sin6_port=htons(9), inet_pton(AF_INET6, "::1", &sin6_addr)}, 28) = 0',
        'connect(3, {sa_family=AF_UNIX, sun_path="/run/a"}, 110) = 0',
        'sendto(3, ""..., 9, 0, NULL, 0) = 9',
    ]
    found, outside = connections("\n".join(lines))
    assert outside == {"192.0.2.1", "2001:db8::1"}
    assert found == {"loopback": 2, "outside": 2, "unix": 1}
