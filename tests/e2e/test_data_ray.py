"""A data set made by a Ray cluster of two machines' worth of workers, one of which is killed at its work."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import UsageError
from lsx.training import prepare as prepare_module
from lsx.training.prepare import PrepareOptions, prepare
from lsx.training.shards import DataSet
from lsx.training.source import SourceTask, prepare_source

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own: sockets and processes that it leaves to the collector

SMALL: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,
    "node_ip_address": "127.0.0.1",
    "include_log_monitor": False,
}


def held_source(task: SourceTask) -> None:
    """Prepare a video on the head; on the other node, tell that one is under way there, and wait for its end."""
    import ray

    folder = task.file.parent
    if ray.get_runtime_context().get_node_id() == (folder / ".head").read_text():
        with (folder / ".go").open("rb", buffering=0) as pipe:
            pipe.read(1)
    else:
        (folder / ".started").write_text("yes")
        (folder / ".never").read_text()  # nobody writes
    prepare_source(task)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else Ray takes 127.0.0.1 for the machine's address
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    started: Any = cluster_utils.Cluster(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
    try:
        started.add_node(**SMALL)
        yield started
    finally:
        started.shutdown()


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_cluster_that_loses_a_machine_gives_the_same_bytes(
    cluster: Any, bundle: Callable[[Precision, int], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_clip(videos / name, portrait_frames(26 + number, 256, 192), sound=speech(1.2, seed=number))
    (videos / "d.mp4").write_bytes((videos / "a.mp4").read_bytes()[:3000])
    for pipe in (".started", ".never", ".go"):
        os.mkfifo(videos / pipe)
    (videos / ".head").write_text(cluster.head_node.node_id)
    options = PrepareOptions(
        bundle=bundle("fp32", 64).path,
        resolution=64,
        min_seconds=1.0,
        max_seconds=2.0,
        min_face=40,
        samples_per_shard=2,
        ray=cluster.address,
    )
    killed: list[str] = []

    def kill_the_other_node(go: BinaryIO) -> None:
        killed.append((videos / ".started").read_text())
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        go.write(b"." * 100)

    monkeypatch.setattr(prepare_module, "prepare_source", held_source)
    with (videos / ".go").open("r+b", buffering=0) as go:
        threading.Thread(target=kill_the_other_node, args=(go,), daemon=True).start()
        report = prepare([videos], tmp_path / "by_ray", options)
    assert killed == ["yes"]
    assert report.segments == 3
    assert [row.source for row in DataSet.open(tmp_path / "by_ray").dropped()] == ["d.mp4"]
    monkeypatch.setattr(prepare_module, "prepare_source", prepare_source)
    prepare([videos], tmp_path / "alone", replace(options, ray=None, processes=1))
    assert digests(tmp_path / "by_ray") == digests(tmp_path / "alone")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1"])
def test_no_cluster_is_said_on_one_line(
    tmp_path: Path, bundle: Callable[[Precision, int], Bundle], address: str
) -> None:
    pytest.importorskip("ray")
    write_clip(tmp_path / "a.mp4", portrait_frames(5, 256, 192), sound=speech(0.2))
    options = PrepareOptions(bundle=bundle("fp32", 64).path, ray=address)
    with pytest.raises(UsageError, match=f"--ray {address}: no Ray cluster answers there") as error:
        prepare([tmp_path / "a.mp4"], tmp_path / "set", options)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
