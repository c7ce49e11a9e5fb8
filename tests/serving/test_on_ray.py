"""Workers as actors of a local Ray cluster; one is lost in the midst of a job, which is done all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.serving.database import migrate
from lsx.serving.settings import ServeSettings
from tests.serving.databases import new_database
from tests.serving.served import Served, until
from tests.torture.harness import Client, fake_server

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own: sockets and processes that it leaves to the collector

_NODE: dict[str, Any] = {
    "num_cpus": 2,
    "object_store_memory": 80 * 2**20,
    "node_ip_address": "127.0.0.1",
    "include_log_monitor": False,
    "include_dashboard": False,
}
_WORKER = "tests.serving.fake_worker"
_FAKE = """
import sys
from lsx.serving.logs import log_to_stderr
from lsx.serving.on_ray import serve_on_ray, settings_on_ray
from lsx.serving.database import migrate
from lsx.serving.settings import ServeSettings

log_to_stderr("INFO", process="on-ray")
serve_on_ray(settings_on_ray(ServeSettings.model_validate_json(sys.argv[1])), sys.argv[2], None, sys.argv[3])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine's, which sends nothing out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        started: Any = cluster_utils.Cluster(initialize_head=True, head_node_args=_NODE)
        yield str(started.address)
        started.shutdown()


@pytest.fixture
def front(postgres: str, tmp_path: Path) -> ServeSettings:
    """Settings of HTTP and keeper, with a store that the actors share."""
    return ServeSettings(
        data=tmp_path / "front",
        database=new_database(postgres),
        store=str(tmp_path / "store"),
        machine="front",
        workers="none",
        port=0,
        min_free_bytes=0,
    )


@contextmanager
def _fake_actors(
    front: ServeSettings, cluster: str, count: int, module: str = _WORKER
) -> Iterator[subprocess.Popen[bytes]]:
    """Actors with workers that cost nothing, or are of a module."""
    own = front.model_dump(mode="json", exclude={"machine"})
    own |= {"data": str(front.data.parent / "ray"), "workers": f"cpu:{count}", "bundle": "none", "grace_seconds": 20}
    settings = ServeSettings.model_validate(own)
    text = settings.model_dump_json(exclude_unset=True)
    command = [sys.executable, "-c", _FAKE, text, cluster, module]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_worker_that_cannot_start_ends_all(front: ServeSettings, cluster: str) -> None:
    migrate(str(front.database))
    with _fake_actors(front, cluster, 1, "lsx.serving.worker") as driver:  # its bundle is not there
        _, told = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert b"cpu:0 cannot start; Ray's log of its actor says why" in told


def _pairs(count: int) -> dict[str, tuple[psutil.Process, psutil.Process]]:
    """Each worker's actor, and its own process, by the worker's name; once there are so many."""

    def look() -> dict[str, tuple[psutil.Process, psutil.Process]] | None:
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command, parent = process.cmdline(), process.parent()
                if command[1:3] == ["-m", _WORKER] and parent is not None and parent.cmdline()[0].startswith("ray::"):
                    found[command[3]] = (parent, process)
        return found if len(found) == count else None

    return until(look)


def _seen(served: Served, count: int) -> None:
    until(lambda: served.api.get("/v1/health/ready").json()["checks"]["workers"] == count)


def test_an_actor_is_lost_with_its_worker(front: ServeSettings, cluster: str) -> None:
    """Ray starts it again, under the same name, and so with its own job."""
    with fake_server(front) as served, _fake_actors(front, cluster, 2) as driver:
        _seen(served, 2)
        client = Client(served, front.data / "media")
        jobs = [client.submit(300)["id"], client.submit(1300)["id"]]
        until(lambda: all(client.job(job)["attempts"] for job in jobs))
        names = _pairs(2)
        actor, worker = names["cpu:0"]
        for process in (actor, worker):
            process.send_signal(signal.SIGSTOP)
        for process in (worker, actor):
            process.kill()
        ended = [client.ended(job) for job in jobs]
        assert [job["status"] for job in ended] == ["COMPLETED"] * 2
        assert sorted(job["attempts"] for job in ended) == [1, 2]
        assert _pairs(2)["cpu:0"][0].pid != actor.pid
        late = client.submit(100)
        client.started(late["id"])
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 0
        assert client.job(late["id"])["status"] == "COMPLETED"  # it drained
        client.close()


@contextmanager
def _command(front: ServeSettings, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`lsx serve on-ray` with the front's database and store."""
    shared = ["--database", str(front.database), "--store", str(front.store), "--data", str(front.data.parent / "ray")]
    command = [sys.executable, "-m", "lsx", "serve", "on-ray", *arguments, *shared, "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_command(
    front: ServeSettings, cluster: str, bundle: Callable[[Precision, int], Bundle], tmp_path: Path
) -> None:
    """A bundle's worker on an actor, from the command line: a job is made, and SIGTERM ends all."""
    write_clip(tmp_path / "face.mp4", portrait_frames(16))
    write_wav(tmp_path / "speech.wav", speech(0.64))
    folder, mark = str(bundle("fp32", 64).path), tmp_path / "ray" / "cpu-0" / "ready" / "cpu-0"
    with (
        fake_server(front) as served,
        _command(front, folder, "--address", cluster, "--workers", "cpu:1") as driver,
    ):
        _seen(served, 1)
        assert mark.exists()
        job = served.submit(served.upload(tmp_path / "face.mp4"), served.upload(tmp_path / "speech.wav"))
        assert served.ended(job["id"])["status"] == "COMPLETED"
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 0
        assert not mark.exists()


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:1", "no Ray cluster answers there"), ("", "has no GPU; give --actors")]
)
def test_what_cannot_be_is_said_on_one_line(
    front: ServeSettings, cluster: str, bundle: Callable[[Precision, int], Bundle], address: str, said: str
) -> None:
    with _command(front, str(bundle("fp32", 64).path), "--address", address or cluster) as driver:
        _, told = driver.communicate(timeout=60)
    assert (driver.returncode, said in told.splitlines()[-1]) == (2, True), told
