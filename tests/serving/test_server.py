"""A whole server, killed and told to end in the midst of jobs. What it makes is what `LipSync.run` makes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from standardwebhooks import Webhook

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.runtime.lipsync import LipSync
from lsx.serving.processes import locked
from tests.serving.served import Served, serving, until


@pytest.fixture(scope="module")
def small(bundle: Callable[[Precision, int], Bundle]) -> Bundle:
    return bundle("fp32", 64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A face, a sound of a chunk, and one that takes long."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder / "face.mp4", portrait_frames(16))
    write_wav(folder / "short.wav", speech(0.64))
    write_wav(folder / "long.wav", speech(60))
    return folder / "face.mp4", folder / "short.wav", folder / "long.wav"


class _Hooks:
    """A receiver of webhooks that is down for the first tries."""

    def __init__(self, refused: int) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.tries: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.tries.append(self.headers.get("webhook-id", ""))
                down = len(outer.tries) <= refused
                if not down:
                    outer.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(503 if down else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hooks() -> Iterator[_Hooks]:
    receiver = _Hooks(refused=2)
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "data"


@pytest.fixture(scope="module")
def served(small: Bundle, data: Path) -> Iterator[Served]:
    """The server of those tests that need none of their own."""
    hooks = ("--allow-hook", "127.0.0.1", "--hook-pauses", "0.2", "--hook-pauses", "0.2")
    bounds = ("--job-attempts", "1", "--max-steps", "3", "--max-seconds", "70")
    with serving(Path(small.path), data, *hooks, *bounds, "--resume-every", "2") as server:
        yield server.ready()
        assert server.end() == 0


def test_a_job_is_what_a_run_is(
    small: Bundle, clip: tuple[Path, Path, Path], served: Served, data: Path, tmp_path: Path, hooks: _Hooks
) -> None:
    """To the byte; its webhook comes once, signed, after a receiver that was down; the workers' figures are told."""
    video, audio = served.upload(clip[0]), served.upload(clip[1])
    job = served.submit(
        video,
        audio,
        options={"steps": 2, "guidance": 1.0, "seed": 7},
        webhook_url=f"http://127.0.0.1:{hooks.server.server_port}/hook",
        metadata={"order": "1"},
        output_file_name="résult.mp4",
    )
    ended = served.ended(job["id"])
    assert (ended["status"], ended["attempts"], ended["error"]) == ("COMPLETED", 1, None)
    made = served.api.get(ended["output_url"])
    with LipSync.open(small, threads=1) as lipsync:
        lipsync.run(clip[0], clip[1], tmp_path / "own.mp4", steps=2, guidance=1.0, seed=7)
    assert made.content == (tmp_path / "own.mp4").read_bytes()
    assert "r%C3%A9sult.mp4" in made.headers["content-disposition"]
    headers, body = until(lambda: hooks.taken[0] if hooks.taken else None)
    event = Webhook((data / "webhook-secret").read_text()).verify(body, headers)
    assert (event["type"], event["data"]["id"]) == ("job.completed", job["id"])
    assert event["data"]["metadata"] == {"order": "1"}
    assert (len(hooks.tries), len(set(hooks.tries)), len(hooks.taken)) == (3, 1, 1)
    with served.api.stream("GET", job["urls"]["events"]) as events:
        assert '"COMPLETED"' in "".join(events.iter_text())
    models = served.api.get("/v1/models").json()["data"]
    assert (models[0]["resolution"], models[0]["backend"]) == (64, "onnxruntime")
    assert "steps" in models[0]["options"]["properties"]
    assert list((data / "work").rglob("*.mp4")) == []


@pytest.fixture
def collector() -> Iterator[_Hooks]:
    """A receiver of traces."""
    receiver = _Hooks(refused=0)
    yield receiver
    receiver.close()


def test_the_manuals_client(small: Bundle, clip: tuple[Path, Path, Path], tmp_path: Path, collector: _Hooks) -> None:
    """The Python blocks of docs/serving.md, as they stand there, one after the other, traced."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "video.mp4").write_bytes(clip[0].read_bytes())
    (tmp_path / "speech.wav").write_bytes(clip[1].read_bytes())
    traces = f"http://127.0.0.1:{collector.server.server_port}/v1/traces"
    with serving(Path(small.path), tmp_path / "data", "--traces", traces) as served:
        text = "\n".join([f"SERVER = {served.url!r}", *blocks])
        subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True)
        with_avatar = served.api.get("/v1/jobs").json()["data"][0]
        assert with_avatar["input"][0]["type"] == "avatar"
        assert served.ended(with_avatar["id"])["status"] == "COMPLETED"
        assert served.end() == 0  # what was traced is sent by then
    assert (tmp_path / "served.mp4").stat().st_size > 1000
    assert (tmp_path / "from-client.mp4").read_bytes() == (tmp_path / "served.mp4").read_bytes()
    sent = [ExportTraceServiceRequest.FromString(body) for _, body in collector.taken]
    spans = [span for part in sent for of in part.resource_spans for scope in of.scope_spans for span in scope.spans]
    lengths = {span.name: span.end_time_unix_nano - span.start_time_unix_nano for span in spans}
    assert lengths["lipsync"] >= lengths["render"] > 0
    assert {"probe", "render", "publish"} < set(lengths)


def test_refused_before_the_gpu_and_failed(
    clip: tuple[Path, Path, Path], video: Path, served: Served, data: Path, tmp_path: Path
) -> None:
    face, sound = served.upload(clip[0]), served.upload(clip[1])
    faceless = served.upload(video)
    many = served.submit(face, sound, options={"steps": 4})
    none = served.submit(faceless, sound, options={"steps": 1})
    refused = served.ended(many["id"])
    assert (refused["status"], refused["error"]["code"]) == ("REJECTED", "invalid_options")
    assert "at most 3" in refused["error"]["message"]
    failed = served.ended(none["id"])
    assert (failed["status"], failed["error"]["code"]) == ("FAILED", "no_face")
    assert str(data.parent) not in failed["error"]["message"]
    longer = write_wav(tmp_path / "longer.wav", speech(71)).read_bytes()
    long = served.api.post("/v1/assets", params={"filename": "longer.wav"}, content=longer)
    assert (long.status_code, long.json()["code"]) == (415, "unreadable_media")


def _running(served: Served, clip: tuple[Path, Path, Path]) -> dict[str, Any]:
    """A long job that has made its first frames."""
    job = served.submit(served.upload(clip[0]), served.upload(clip[2]))
    until(lambda: (served.job(job["id"])["progress"] or {}).get("frames"))
    return job


def test_kills_cancel_and_the_next_job(clip: tuple[Path, Path, Path], served: Served, data: Path) -> None:
    """A killed worker's job goes on; a cancelled one frees the worker at its next mark, and leaves nothing."""
    outputs = data / "store" / "outputs"
    before = {path.name for path in outputs.glob("*")}
    job = _running(served, clip)
    short = served.submit(served.upload(clip[0]), served.upload(clip[1]))
    served.kill("lsx.serving.worker")
    until(lambda: served.job(job["id"])["attempts"] == 2)
    served.kill("lsx.serving.http_process")
    until(lambda: _answers(served))
    cancelled = served.api.post(f"/v1/jobs/{job['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "CANCELED")
    assert served.ended(short["id"])["status"] == "COMPLETED"
    assert served.job(job["id"])["status"] == "CANCELED"
    assert served.api.get(f"/v1/jobs/{job['id']}/output").status_code == 409
    assert {path.name for path in outputs.iterdir()} - before == {short["id"]}
    assert list((data / "work").rglob("*.mp4")) == []


def test_a_killed_workers_job_goes_on_where_it_was(
    small: Bundle, clip: tuple[Path, Path, Path], served: Served, data: Path, tmp_path: Path
) -> None:
    """From the last section that was kept; the result is, to the byte, that of a run that nobody ended."""
    sound = write_wav(tmp_path / "sound.wav", speech(8))
    job = served.submit(served.upload(clip[0]), served.upload(sound))
    store = data / "store" / "sections" / job["id"]
    until(lambda: [*store.rglob("*.mp4")])  # which of them is there when a disk is slow, nobody knows
    served.kill("lsx.serving.worker")
    kept = len([*store.rglob("*.mp4")])  # the next worker has none to add for seconds
    assert served.ended(job["id"])["attempts"] == 2
    made = served.api.get(f"/v1/jobs/{job['id']}/output").content
    done = [line for line in served.lines() if line.get("event") == "job is done" and line["job"] == job["id"]]
    assert [line["frames"] for line in done] == [200 - 64 * kept]
    assert not store.exists()
    with LipSync.open(small, threads=1) as lipsync:
        lipsync.run(clip[0], sound, tmp_path / "own.mp4", steps=1, resume_dir=tmp_path / "kept", resume_every=2)
    assert made == (tmp_path / "own.mp4").read_bytes()


def _answers(served: Served) -> bool:
    """A new HTTP process has the port of the one before."""
    ports = [line["port"] for line in served.lines() if line.get("event") == "listening"]
    assert len(set(ports)) == 1
    return len(ports) > 1


def test_a_job_that_kills_its_worker_ends(clip: tuple[Path, Path, Path], served: Served) -> None:
    job = _running(served, clip)
    served.kill("lsx.serving.worker")
    until(lambda: served.job(job["id"])["attempts"] == 2)
    until(lambda: served.processes("lsx.serving.worker"))
    served.kill("lsx.serving.worker")
    ended = served.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("FAILED", "worker_crashed")
    short = served.submit(served.upload(clip[0]), served.upload(clip[1]))
    assert served.ended(short["id"])["status"] == "COMPLETED"


def test_drained_at_sigterm(small: Bundle, clip: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The running job ends, the queued one stays queued, and is made by the next server."""
    data = tmp_path / "data"
    with serving(Path(small.path), data) as served:
        face, sound = served.upload(clip[0]), served.upload(clip[1])
        first = served.submit(face, sound, options={"steps": 20})
        until(lambda: served.job(first["id"])["status"] == "PROCESSING")
        second = served.submit(face, sound)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
    with serving(Path(small.path), data) as served:
        assert served.job(first["id"])["status"] == "COMPLETED"
        assert served.ended(second["id"])["attempts"] == 1


def test_a_new_bundle_without_a_pause(clip: tuple[Path, Path, Path], served: Served) -> None:
    """SIGHUP: a new worker takes over when it is ready, and no job is lost."""
    face, sound = served.upload(clip[0]), served.upload(clip[1])
    jobs = [served.submit(face, sound)["id"] for _ in range(3)]
    old = until(lambda: served.processes("lsx.serving.worker"))
    served.process.send_signal(signal.SIGHUP)
    until(lambda: len(served.processes("lsx.serving.worker")) == 2)
    jobs += [served.submit(face, sound)["id"] for _ in range(3)]
    until(lambda: old[0] not in served.processes("lsx.serving.worker"))
    jobs.append(served.submit(face, sound)["id"])
    assert {served.ended(job)["status"] for job in jobs} == {"COMPLETED"}
    assert {served.job(job)["attempts"] for job in jobs} == {1}


def test_one_server_a_folder(small: Bundle, tmp_path: Path) -> None:
    with locked(tmp_path / "locks", "supervisor") as free:
        assert free
        with pytest.raises(AssertionError), serving(Path(small.path), tmp_path):
            pass
    assert "another lsx serve works there" in (tmp_path / "log").read_text()
