"""The client and its commands: against a whole server whose workers cost nothing, and against one that fails."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from lsx.cli.jobs import submit
from lsx.cli.main import main
from lsx.errors import LsxError, MediaError, OutputError, ServerRefused, ServerUnreachable, UsageError
from lsx.serving.client import AsyncClient, Client
from lsx.serving.client.conversation import Patience
from lsx.serving.client.saving import Saving
from lsx.serving.database import migrate
from lsx.serving.job_options import JobOptions
from lsx.serving.settings import ServeSettings
from tests.serving.served import Served
from tests.torture.harness import fake_server, write_media

Answers = Callable[[httpx.Request], httpx.Response]
MISSING = "job_01k9zq3v0s9g0d9q7y6k2m4n8p"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("served")
    database = f"sqlite:///{data / 'jobs.sqlite'}"
    migrate(database)
    settings = ServeSettings(
        data=data, database=database, machine="test", min_free_bytes=0, port=0, workers="cpu:1", poll_seconds=0.05
    )
    with fake_server(settings) as served:
        yield served


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_media(tmp_path_factory.mktemp("media"))


def test_from_two_files_to_a_result(server: Served, media: tuple[Path, Path], tmp_path: Path) -> None:
    with Client(server.url) as client:
        job = client.submit(*media, options={"seed": 6, "steps": 7}, metadata={"order": "12"}, output_file_name="a.mp4")
        seen = list(client.watch(job))
        assert seen[-1].status == "COMPLETED"
        output = client.download(job, tmp_path / "result.mp4")
        assert output.read_bytes() == httpx.get(f"{server.url}/v1/jobs/{job.id}/output").content
        assert [path.name for path in tmp_path.iterdir()] == ["result.mp4"]
        kept = server.job(job.id)
        assert (kept["options"]["steps"], kept["metadata"], kept["output_file_name"]) == (7, {"order": "12"}, "a.mp4")
        assert client.wait(job).model_dump(mode="json") == kept
        twice = [client.submit(*media, options={"seed": 2}, idempotency_key="order-1").id for _ in range(2)]
        assert twice[0] == twice[1]  # by what is in the files, which are sent again
        again = client.retry(client.cancel(client.submit(*media, options={"seed": 999})))
        client.cancel(again)
        assert next(client.jobs("CANCELED")).id == again.id
        client.delete(again)
        assert again.id not in [listed.id for listed in client.jobs()]


def test_the_same_for_asyncio(server: Served, media: tuple[Path, Path], tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(server.url) as client:
            video, sound = [(await client.upload(path)).id for path in media]
            job = await client.submit(video, sound, options={"seed": 4}, idempotency_key="one")
            assert (await client.submit(video, sound, options={"seed": 4}, idempotency_key="one")).id == job.id
            states: list[str] = []
            ended = await client.wait(job, lambda state: states.append(state.status))
            assert states[-1] == ended.status == "COMPLETED"
            output = await client.download(job, tmp_path / "result.mp4")
            assert output.read_bytes() == httpx.get(f"{server.url}/v1/jobs/{job.id}/output").content
            assert job.id in [listed.id async for listed in client.jobs("COMPLETED")]
            with pytest.raises(ServerRefused) as refused:
                await client.cancel(job)
            assert (refused.value.status, refused.value.code) == (409, "already_ended")
            prepared = await client.prepare_avatar(video, "Anna")
            assert prepared.id in [avatar.id async for avatar in client.avatars()]
            await client.delete_avatar(prepared.id)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"options": {"steps": 0}}, UsageError, "steps: "),
        ({"options": {"stepz": 3}}, UsageError, "stepz: "),
        ({"priority": 10}, UsageError, "priority: "),
        ({"video": "absent.mp4"}, MediaError, "absent.mp4: no such file"),
    ],
)
def test_refused_before_anything_is_sent(
    more: dict[str, Any], error: type[LsxError], said: str, media: tuple[Path, Path]
) -> None:
    """No server is there, and none is asked."""
    given = {"video": media[0], "audio": media[1]} | more
    with Client("http://127.0.0.1:9", patience=0) as client, pytest.raises(error, match=f"^{said}"):
        client.submit(**given)


def test_what_a_server_refuses_and_who_is_none(server: Served, media: tuple[Path, Path], tmp_path: Path) -> None:
    with Client(server.url) as client:
        with pytest.raises(ServerRefused, match=r"\(404, not_found\)"):
            client.job(MISSING)
        with pytest.raises(ServerRefused, match=r"\(415, "):
            client.upload(Path(__file__))
        with pytest.raises(UsageError, match="is no id"):
            client.cancel("../v1/assets")
        with pytest.raises(OutputError, match="no such folder"):
            client.download(MISSING, tmp_path / "absent" / "a.mp4")
    with pytest.raises(UsageError, match="give its address"):
        Client("localhost:8000")
    with Client("http://127.0.0.1:9", patience=0.3) as client, pytest.raises(ServerUnreachable, match="no answer"):
        client.upload(media[1])


def _answering(answers: Answers, patience: float = 5.0) -> Client:
    """A client whose server is a function."""
    client = Client("http://server.test", key="lsx_secret", patience=patience)
    headers = client._http.headers
    client._http = httpx.Client(base_url=client.server, headers=headers, transport=httpx.MockTransport(answers))
    return client


def _job(status: str, **more: Any) -> dict[str, Any]:
    absent = ("started_at", "completed_at", "expires_at", "queue_position", "progress", "output_url", "output_duration")
    urls = dict.fromkeys(("get", "cancel", "events", "output"), "")
    job = {"id": "job_1", "status": status, "created_at": "", "attempts": 1, "output_file_name": "", "notes": []}
    job |= {"input": [], "options": {}, "priority": 5, "metadata": {}, "urls": urls, "error": None, "retry_of": None}
    return job | dict.fromkeys(absent) | more


def test_a_busy_server_is_asked_again_as_it_wishes(monkeypatch: pytest.MonkeyPatch, media: tuple[Path, Path]) -> None:
    """429 with its pause, a connection that breaks, then the job: with one idempotency key all the time."""
    pauses: list[float] = []
    monkeypatch.setattr("lsx.serving.client.synchronous.time.sleep", pauses.append)
    keys: list[str] = []

    def answers(request: httpx.Request) -> httpx.Response:
        body = request.read()
        assert all(path.read_bytes() in body for path in media)
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            problem = {"detail": "too many jobs wait", "code": "queue_full", "errors": []}
            return httpx.Response(429, json=problem, headers={"Retry-After": "3"})
        if len(keys) == 2:
            raise httpx.ReadError("gone")
        return httpx.Response(202, json=_job("PENDING"))

    with _answering(answers) as client:
        assert client.submit(*media).status == "PENDING"
    assert pauses == [3.0, 0.5]
    assert len(set(keys)) == 1


def test_patience_ends() -> None:
    def answers(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"detail": "the database is away", "code": "unavailable", "errors": []})

    with _answering(answers, patience=0.1) as client, pytest.raises(ServerRefused, match=r"\(503, unavailable\)"):
        client.job("job_1")
    assert Patience(1.0).pause(asked=2.0) is None


def test_events_that_break_off_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsx.serving.client.synchronous.time.sleep", lambda _: None)
    streams: list[list[dict[str, Any]] | Exception] = [
        [_job("PENDING")],
        httpx.ConnectError("the server is started again"),
        [_job("PROCESSING"), _job("COMPLETED")],
    ]

    def answers(_request: httpx.Request) -> httpx.Response:
        told = streams.pop(0)
        if isinstance(told, Exception):
            raise told
        lines = "".join(f"event: job\r\ndata: {json.dumps(job)}\r\n\r\n: ping\r\n\r\n" for job in told)
        return httpx.Response(200, text=lines)

    with _answering(answers) as client:
        assert [job.status for job in client.watch("job_1")] == ["PENDING", "PROCESSING", "COMPLETED"]


class _Breaking(httpx.SyncByteStream):
    """A body that ends in the midst."""

    def __init__(self, part: bytes) -> None:
        self._part = part

    def __iter__(self) -> Iterator[bytes]:
        yield self._part
        raise httpx.ReadError("gone")


def test_a_download_goes_on_where_it_broke_and_tells_no_other_host_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lsx.serving.client.synchronous.time.sleep", lambda _: None)
    content, asked = bytes(range(256)) * 40, []

    def answers(request: httpx.Request) -> httpx.Response:
        if request.url.host == "server.test":
            assert request.headers["Authorization"] == "Bearer lsx_secret"
            return httpx.Response(307, headers={"Location": "https://store.test/signed"})
        assert "Authorization" not in request.headers
        asked.append(request.headers.get("Range"))
        if len(asked) == 1:
            return httpx.Response(200, stream=_Breaking(content[:3000]))
        return httpx.Response(206, content=content[3000:])

    with _answering(answers) as client:
        output = client.download("job_1", tmp_path / "result.mp4")
    assert asked == [None, "bytes=3000-"]
    assert output.read_bytes() == content


def test_a_download_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "result.mp4"
    output.write_bytes(b"before")

    def answers(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(410, json={"detail": "it is past its time", "code": "expired", "errors": []})

    with _answering(answers) as client, pytest.raises(ServerRefused, match="past its time"):
        client.download("job_1", output)
    assert output.read_bytes() == b"before"
    with Saving(output) as saving:  # a store that knows no ranges sends all of it again
        saving.begin(200)
        saving.write(b"half")
        assert saving.headers() == {"Range": "bytes=4-"}
        saving.begin(200)
        saving.write(b"whole")
        saving.finished()
    assert output.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [output]


def test_another_server_is_told_apart() -> None:
    with _answering(lambda _: httpx.Response(200, json={"backend": "tensorrt"})) as client:
        assert client.models() == {"backend": "tensorrt"}
    with _answering(lambda _: httpx.Response(404, text="<html>")) as client, pytest.raises(ServerRefused, match="404"):
        client.job("job_1")
    with _answering(lambda _: httpx.Response(200, json={})) as client, pytest.raises(ServerRefused, match="is no Job"):
        client.job("job_1")


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    return int(str(ended.value.code)), said.out, said.err


def test_the_commands(
    server: Served,
    media: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LSX_SERVER", server.url)
    face, sound = (str(shutil.copy(path, tmp_path)) for path in media)
    output = tmp_path / "out.mp4"
    code, said, _ = _run(
        capsys, "submit", face, sound, "-o", str(output), "--seed", "8", "--colour-match", "--fps", "30"
    )
    assert code == 0
    assert said.startswith(f"output: {output}")
    code, said, _ = _run(capsys, "submit", face, sound, "--seed", "999", "--cache-interval", "off", "--json")
    job = json.loads(said)
    assert (job["options"]["cache_interval"], job["options"]["seed"]) == ("off", 999)
    code, said, _ = _run(capsys, "jobs")
    listed = [line.split()[:2] for line in said.splitlines()[1:]]
    assert [job["id"], "COMPLETED"] not in listed
    assert any(status == "COMPLETED" for _, status in listed)
    assert _run(capsys, "cancel", job["id"])[1] == "canceled: 1 job\n"
    code, said, _ = _run(capsys, "jobs", job["id"], "--json")
    assert json.loads(said)["jobs"][0]["status"] == "CANCELED"
    code, _, said = _run(capsys, "jobs", job["id"], "-o", str(tmp_path / "none.mp4"))
    assert code == 1
    assert f"job {job['id']} is CANCELED" in said
    assert not (tmp_path / "none.mp4").exists()
    first = next(number for number, status in listed if status == "COMPLETED")
    assert _run(capsys, "jobs", first, "-o", str(tmp_path / "again.mp4"))[0] == 0
    assert (tmp_path / "again.mp4").stat().st_size > 0


def test_submit_has_a_flag_for_each_option_but_segments() -> None:
    flags = inspect.signature(submit).parameters
    own = {"video", "audio", "output", "server", "key", "priority", "webhook_url", "metadata", "output_file_name"}
    assert set(flags) - own == set(JobOptions.model_fields) - {"segments"}
    for name, field in JobOptions.model_fields.items():
        if name in flags:
            kinds = get_args(get_args(flags[name].annotation)[0])
            assert (bool in kinds) == (field.annotation is bool)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("jobs", "--status", "DONE"), 2, "give one of PENDING"),
        (("jobs", "-o", "a.mp4"), 2, "takes the result of one job"),
        (("submit", "a.mp4", "b.wav", "-o", "absent/a.mp4"), 1, "no such folder"),
        (("submit", "a.mp4", "b.wav"), 1, "a.mp4: no such file"),
        (("submit", "a.mp4", "b.wav", "--metadata", "x"), 2, "give KEY=VALUE"),
        (("cancel", "job_1", "--server", "nowhere"), 2, "give its address"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _, errors = _run(capsys, *arguments)
    assert found == code
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
