"""Several machines on one PostgreSQL and one S3: the front, and workers that share no disk with it or each other."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from dbos import DBOSClient

from lsx.serving.database import database_url
from lsx.serving.job_options import run_options
from lsx.serving.settings import ServeSettings
from lsx.serving.store import store_at
from tests.serving.databases import new_database
from tests.serving.served import Served, until
from tests.torture.harness import Client, fake_server

_SECONDS = 3


@pytest.fixture
def front(postgres: str, bucket: str, tmp_path: Path) -> ServeSettings:
    """Settings of a machine with HTTP and the keeper alone."""
    return ServeSettings(
        data=tmp_path / "front",
        database=new_database(postgres),
        store=bucket,
        machine="front",
        workers="none",
        port=0,
        takeover_seconds=5,
        min_free_bytes=0,
    )


@contextmanager
def _worker_machine(front: ServeSettings, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A machine with one worker, which has nothing of the front's but database and store."""
    own = front.model_copy(update={"machine": name, "data": front.data.parent / name, "workers": "cpu:1"})
    command = [sys.executable, "-m", "tests.serving.fake_server", own.model_dump_json(), "alone"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _lose(machine: subprocess.Popen[bytes]) -> None:
    """End all processes of a machine at once, for ever."""
    processes = [psutil.Process(machine.pid), *psutil.Process(machine.pid).children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)  # so that none learns of the others' end
    for process in processes:
        process.kill()
    machine.wait(30)


def _executors(front: ServeSettings) -> dict[str, str]:
    """Which executor has which job, by the database."""
    client = DBOSClient(system_database_url=database_url(front.database, front.data))
    try:
        return {found.workflow_id: str(found.executor_id) for found in client.list_workflows(status="PENDING")}
    finally:
        client.destroy()


def _expected(seed: int) -> bytes:
    """What the fake worker makes of a job."""
    sampling = run_options({"seed": seed}, {}, None).sampling
    return hashlib.sha256(str(sampling).encode()).digest() * 100


def _downloaded(served: Served, job: str) -> bytes:
    """A job's output, as the client gets it: from the object store's own address, which the server gives."""
    sent = served.api.get(f"/v1/jobs/{job}/output")
    assert sent.status_code in (302, 307), sent.text
    assert sent.headers["location"].startswith(os.environ["AWS_ENDPOINT"])
    return served.api.get(f"/v1/jobs/{job}/output", follow_redirects=True).content


def test_two_worker_machines_and_one_of_them_is_lost(front: ServeSettings) -> None:
    with (
        fake_server(front) as served,
        _worker_machine(front, "one") as one,
        _worker_machine(front, "two"),
    ):
        until(lambda: served.api.get("/v1/health/ready").json()["checks"]["workers"] == 2)
        client = Client(served, front.data / "media")
        seeds = [100 * _SECONDS, 1000 + 100 * _SECONDS, 2000]
        jobs = [client.submit(seed)["id"] for seed in seeds]
        until(lambda: len(_executors(front)) == 2)
        begun = _executors(front)
        assert set(begun.values()) == {"one/cpu:0", "two/cpu:0"}
        _lose(one)
        ended = [client.ended(job) for job in jobs]
        client.close()
        assert [job["status"] for job in ended] == ["COMPLETED"] * 3
        assert [job["attempts"] for job in ended[:2]] == [1 + (begun[job["id"]] == "one/cpu:0") for job in ended[:2]]
        assert [_downloaded(served, job) for job in jobs] == [_expected(seed) for seed in seeds]
    store = store_at(front.store, front.data)
    assert [found.key.split("/")[1] for found in store.list("outputs")] == sorted(jobs)  # one of each
    assert not [path for path in front.data.parent.rglob("*.mp4") if path.parent.name != "media"]


def test_results_through_the_server(front: ServeSettings) -> None:
    """Where clients do not reach the object store: whole, and in parts."""
    with fake_server(front.model_copy(update={"redirect_outputs": False})) as served, _worker_machine(front, "one"):
        served.ready()
        client = Client(served, front.data / "media")
        job = client.ended(client.submit(0)["id"])["id"]
        client.close()
        expected = _expected(0)
        assert served.api.get(f"/v1/jobs/{job}/output").content == expected
        part = served.api.get(f"/v1/jobs/{job}/output", headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, expected[100:200])


def test_a_file_in_parts(bucket: str, tmp_path: Path) -> None:
    """More than 8 MiB go to S3 in several requests, and come back the same."""
    store, content = store_at(bucket, tmp_path), os.urandom(17 << 20)
    file = tmp_path / "file"
    file.write_bytes(content)
    store.put("uploads/a", file)
    assert b"".join(store.read("uploads/a")) == content
    assert b"".join(store.read("uploads/a", 8 << 20, 9 << 20)) == content[8 << 20 : 9 << 20]
    assert [(found.key, found.size) for found in store.list("uploads")] == [("uploads/a", len(content))]
    file.write_bytes(b"other")
    store.put("uploads/a", file)
    assert store.size("uploads/a") == len(content)
    store.remove("uploads/a")
    assert store.size("uploads/a") is None
