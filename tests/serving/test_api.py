"""The API without workers: what is taken in, told and refused, on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from lsx.serving.api_keys import KeyBook
from lsx.serving.database import JOBS, engine_for
from lsx.serving.gpu_queue import _LOCKS, _turn_for
from lsx.serving.heartbeat import beating
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from tests.serving.served import until

_LOCAL = "http://127.0.0.1:8000"


@pytest.fixture
def client(settings: ServeSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=_LOCAL) as client:
        yield client


def _upload(client: TestClient, path: Path, **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/assets", params={"filename": path.name}, content=path.read_bytes(), headers=headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def request_body(client: TestClient, video: Path, sound: Path) -> dict[str, Any]:
    return _request(client, video, sound)


def _request(client: TestClient, video: Path, sound: Path, **headers: str) -> dict[str, Any]:
    inputs = [{"type": "video", "asset_id": _upload(client, video, **headers)["id"]}]
    inputs += [{"type": "audio", "asset_id": _upload(client, sound, **headers)["id"]}]
    return {"input": inputs, "options": {"steps": 1}}


def test_an_upload(client: TestClient, video: Path, settings: ServeSettings) -> None:
    asset = _upload(client, video)
    assert (asset["kind"], asset["width"], asset["height"], asset["size"]) == ("video", 64, 48, video.stat().st_size)
    assert client.get(f"/v1/assets/{asset['id']}").json() == asset
    content = client.get(f"/v1/assets/{asset['id']}/content", headers={"Range": "bytes=4-11"})
    assert (content.status_code, content.content) == (206, video.read_bytes()[4:12])
    assert content.headers["content-range"] == f"bytes 4-11/{video.stat().st_size}"
    assert list((settings.data / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "status", "code"), [(b"", 415, "unreadable_media"), (b"x" * 2000, 413, "too_large"), (b"x", 415, None)]
)
def test_a_refused_upload_leaves_nothing(
    settings: ServeSettings, content: bytes, status: int, code: str | None
) -> None:
    few = settings.model_copy(update={"max_upload_bytes": 1000})
    with TestClient(create_app(few), base_url=_LOCAL) as client:
        sized = client.post("/v1/assets", content=content)
        unsized = client.post("/v1/assets", content=iter([content]))
    for answer in (sized, unsized):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert code is None or answer.json()["code"] == code
    assert [path for path in settings.data.rglob("*") if path.is_file() and "sqlite" not in path.name] == []


def test_a_job_is_there_when_it_is_accepted(client: TestClient, request_body: dict[str, Any]) -> None:
    answer = client.post("/v1/jobs", json=request_body)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["status"], job["queue_position"], job["options"]) == ("PENDING", 1, {"steps": 1})
    assert answer.headers["location"] == job["urls"]["get"]
    assert client.get(job["urls"]["get"]).json() == job
    second = client.post("/v1/jobs", json=request_body | {"priority": 1}).json()
    assert second["queue_position"] == 1
    assert client.get(job["urls"]["get"]).json()["queue_position"] == 2
    assert client.get(job["urls"]["output"]).status_code == 409


@pytest.mark.parametrize("most", [50, 10_000])
def test_the_same_key_is_the_same_job(settings: ServeSettings, video: Path, sound: Path, most: int) -> None:
    """Also where there is so much room that places are given side by side."""
    bounds = {"max_queued": most, "max_queued_per_key": most}
    with TestClient(create_app(settings.model_copy(update=bounds)), base_url=_LOCAL) as client:
        body = _request(client, video, sound)

        def post(more: dict[str, Any]) -> Any:
            return client.post("/v1/jobs", json=body | more, headers={"Idempotency-Key": "order-1"})

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(post, [{}] * 64))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        engine = engine_for(str(settings.database))
        with engine.connect() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(JOBS)).scalar() == 1
        engine.dispose()
        other = post({"priority": 2})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        ({"max_queued": 45, "max_queued_per_key": 10_000}, "queue_full"),
        ({"max_queued": 10_000, "max_queued_per_key": 45}, "quota_reached"),
    ],
)
def test_places_are_given_side_by_side_until_few_are_left(
    settings: ServeSettings,
    video: Path,
    sound: Path,
    bounds: dict[str, int],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lsx.serving.gpu_queue._APART", 24)
    with TestClient(create_app(settings.model_copy(update=bounds)), base_url=_LOCAL) as client:
        body = _request(client, video, sound)
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: client.post("/v1/jobs", json=body), range(60)))
    assert sorted(answer.status_code for answer in answers) == [202] * 45 + [429] * 15
    assert {answer.json()["code"] for answer in answers if answer.status_code == 429} == {code}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("most", [50, 10_000])
def test_who_is_slow_to_commit_holds_up_nobody_while_there_is_room(
    settings: ServeSettings, video: Path, sound: Path, most: int
) -> None:
    bounds = {"max_queued": most, "max_queued_per_key": most}
    engine = engine_for(str(settings.database))
    with TestClient(create_app(settings.model_copy(update=bounds)), base_url=_LOCAL) as client:
        body = _request(client, video, sound)
        with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
            connection.execute(_LOCKS[_turn_for(most, most)], {"owner": "local", "number": "job_another"})
            asked = pool.submit(client.post, "/v1/jobs", json=body)
            waits = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            until(lambda: asked.done() or connection.execute(waits).scalar() == 1)
            assert asked.done() == (most > 50)
            connection.rollback()
            assert asked.result().status_code == 202
    engine.dispose()


def test_the_queue_is_bounded(settings: ServeSettings, video: Path, sound: Path) -> None:
    """Never more than the bound, however many come at once."""
    with TestClient(create_app(settings.model_copy(update={"max_queued": 7})), base_url=_LOCAL) as client:
        body = _request(client, video, sound)
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _: client.post("/v1/jobs", json=body), range(32)))
        codes = [answer.status_code for answer in answers]
        assert codes.count(202) == 7
        full = next(answer for answer in answers if answer.status_code == 429)
        assert (codes.count(429), full.json()["code"]) == (25, "queue_full")
        assert int(full.headers["retry-after"]) > 0
        first = next(answer for answer in answers if answer.status_code == 202).json()
        assert client.post(first["urls"]["cancel"]).json()["status"] == "CANCELED"
        assert client.post("/v1/jobs", json=body).status_code == 202


def test_cancel_retry_delete(client: TestClient, request_body: dict[str, Any]) -> None:
    job = client.post("/v1/jobs", json=request_body).json()
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 409
    cancelled = client.post(job["urls"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "CANCELED")
    assert cancelled.json()["error"]["code"] == "canceled"
    assert client.post(job["urls"]["cancel"]).status_code == 409
    again = client.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (again["retry_of"], again["status"]) == (job["id"], "PENDING")
    assert client.delete(f"/v1/jobs/{again['id']}").status_code == 204
    assert client.get(again["urls"]["get"]).status_code == 404
    assert client.delete(f"/v1/jobs/{again['id']}").status_code == 404


def test_pages_of_jobs(client: TestClient, request_body: dict[str, Any]) -> None:
    made = [client.post("/v1/jobs", json=request_body).json()["id"] for _ in range(5)]
    client.post(f"/v1/jobs/{made[3]}/cancel")
    seen, cursor = [], None
    while True:
        page = client.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
    assert [job["id"] for job in client.get("/v1/jobs?status=CANCELED").json()["data"]] == [made[3]]
    waiting = client.get("/v1/jobs", params={"status": "PENDING", "limit": 3}).json()
    assert [job["id"] for job in waiting["data"]] == [made[4], made[2], made[1]]
    assert client.get("/v1/jobs?cursor=nonsense").status_code == 422
    assert client.get("/v1/jobs?limit=0").status_code == 422


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"options": {"steps": 0}}, "options.steps"),
        ({"options": {"stesp": 4}}, "options.stesp"),
        ({"options": {"extend": "backwards"}}, "options.extend"),
        ({"options": {"end": 1, "start": 2}}, "options.end"),
        ({"options": {"speaker": "3"}}, "options.speaker"),
        ({"options": {"mask": "/etc/passwd"}}, "options.mask"),
        ({"options": {"faces": "/etc/passwd"}}, "options.faces"),
        ({"priority": 10}, "priority"),
        ({"input": []}, "input"),
        ({"unknown": 1}, "unknown"),
        ({"output_file_name": "../a.mp4"}, "output_file_name"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"webhook_url": "http://127.0.0.1/"}, "webhook_url"),
        ({"webhook_url": "https://localhost.localdomain:22/"}, "webhook_url"),
    ],
    ids=str,
)
def test_refused_requests(client: TestClient, request_body: dict[str, Any], change: Any, where: str) -> None:
    answer = client.post("/v1/jobs", json=request_body | change)
    assert answer.status_code == 422, answer.text
    assert any(error["loc"].startswith(where) for error in answer.json()["errors"]), answer.json()
    assert client.get("/v1/jobs").json()["data"] == []


def test_inputs_that_do_not_fit(client: TestClient, request_body: dict[str, Any]) -> None:
    video, audio = request_body["input"]
    swapped = [{**video, "asset_id": audio["asset_id"]}, {**audio, "asset_id": video["asset_id"]}]
    for inputs in (swapped, [video], [video, {"type": "audio", "url": "https://example.com/a.wav"}], [video, video]):
        assert client.post("/v1/jobs", json=request_body | {"input": inputs}).status_code == 422
    none = {"type": "audio", "asset_id": "asset_" + "0" * 26}
    answer = client.post("/v1/jobs", json=request_body | {"input": [video, none]})
    assert answer.json()["code"] == "no_such_asset"
    assert client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400


def test_keys_scopes_and_owners(settings: ServeSettings, video: Path, sound: Path) -> None:
    engine = engine_for(str(settings.database))
    keys = KeyBook(engine)
    texts = {scope: keys.create(scope, [scope], 1)[1] for scope in ("jobs", "read", "metrics", "admin")}
    headers = {scope: {"Authorization": f"Bearer {text}"} for scope, text in texts.items()}
    with TestClient(create_app(settings), base_url=_LOCAL) as client:
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers={"X-Api-Key": texts["jobs"][:-1] + "x"}).status_code == 401
        assert client.get("/v1/health/live").status_code == 200
        assert client.post("/v1/assets", content=b"x", headers=headers["read"]).status_code == 403
        assert client.get("/v1/metrics", headers=headers["jobs"]).status_code == 403
        assert client.get("/v1/metrics", headers=headers["metrics"]).status_code == 200
        body = _request(client, video, sound, **headers["jobs"])
        job = client.post("/v1/jobs", json=body, headers=headers["jobs"]).json()
        full = client.post("/v1/jobs", json=body, headers=headers["jobs"])
        assert (full.status_code, full.json()["code"]) == (429, "quota_reached")
        for other in ("read", "admin"):
            assert client.get(job["urls"]["get"], headers=headers[other]).status_code == 404
        stolen = client.post("/v1/jobs", json=body, headers=headers["admin"])
        assert stolen.json()["code"] == "no_such_asset"
        assert client.post("/login", json={"key": "lsx_0_0"}).status_code == 401
        assert client.post("/login", json={"key": texts["jobs"]}).status_code == 204
        assert client.get(job["urls"]["get"]).json()["id"] == job["id"]
        client.post("/logout")
        assert client.get(job["urls"]["get"]).status_code == 401
    with engine.connect() as connection:
        kept = str(connection.execute(sa.text("SELECT * FROM lsx_keys")).all())
    assert not any(text.split("_", 2)[2] in kept for text in texts.values())
    number = next(key.id for key in keys.every() if key.name == "jobs")
    keys.revoke(number)
    assert KeyBook(engine).find(texts["jobs"]) is None
    engine.dispose()


def test_other_sites_pages(client: TestClient) -> None:
    """Without keys a page of another site gets nothing, also under a name that leads to this machine."""
    assert client.get("/v1/jobs", headers={"Origin": "https://example.com"}).status_code == 403
    assert client.get("/v1/jobs", headers={"Host": "rebound.example.com:8000"}).status_code == 403
    assert client.get("/v1/jobs", headers={"Origin": _LOCAL}).status_code == 200
    assert client.post("/v1/jobs", content=iter([b"{}"])).status_code == 413


def test_requests_a_minute(settings: ServeSettings) -> None:
    engine = engine_for(str(settings.database))
    text = KeyBook(engine).create("a", ["jobs"])[1]
    engine.dispose()
    with TestClient(create_app(settings.model_copy(update={"requests_a_minute": 3})), base_url=_LOCAL) as client:
        codes = [client.get("/v1/jobs", headers={"X-Api-Key": text}).status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]


def test_health_metrics_and_pages(client: TestClient, request_body: dict[str, Any]) -> None:
    client.post("/v1/jobs", json=request_body)
    ready = client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()["checks"]["database"], ready.json()["checks"]["workers"]) == (503, True, 0)
    text = client.get("/v1/metrics").text
    assert 'lsx_jobs{status="PENDING"} 1.0' in text
    assert "lsx_queue_oldest_seconds" in text
    for path in ("/page/..%2f__init__.py", "/page/none.js", "/nothing", "/page/%2e%2e/job_book.py"):
        assert client.get(path).status_code == 404
    assert client.put("/v1/jobs").status_code == 405


def test_pages_and_all_that_they_ask_for(client: TestClient) -> None:
    left, seen = ["/", "/live", "/job/job_0"], set[str]()
    while left:
        path = left.pop()
        answer = client.get(path)
        assert answer.status_code == 200, path
        if not path.startswith("/page/"):
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        seen.add(path)
        asked = re.findall(r'"(/page/[^"]+)"', answer.text)
        asked += [f"/page/{name}" for name in re.findall(r'(?:from|import) "\./([^"]+)"', answer.text)]
        left += set(asked) - seen
    page = resources.files("lsx.serving") / "page"
    files = {f"/page/{file.name}" for file in page.iterdir() if not file.name.endswith(".html")}
    assert files <= seen


def test_the_dashboard_asks_for_what_is_told(client: TestClient, settings: ServeSettings) -> None:
    """Every name in examples/serving/grafana.json is one of /v1/metrics."""
    engine = engine_for(str(settings.database))
    totals = {"totals": {"jobs": 3, "frames": 48, "render_seconds": 1.5}}
    with beating(engine, "here/gpu:0", "worker", lambda: totals):
        client.get("/v1/version")
        text = client.get("/v1/metrics").text
    engine.dispose()
    assert 'lsx_worker_frames_total{executor="here/gpu:0"} 48.0' in text
    told = set(re.findall(r"^(lsx_\w+)", text, re.MULTILINE))
    dashboard = (Path(__file__).parents[2] / "examples" / "serving" / "grafana.json").read_text(encoding="utf-8")
    asked = {
        name for panel in json.loads(dashboard)["panels"] for target in panel["targets"] for name in _names(target)
    }
    assert len(asked) > 6
    assert asked <= told


def _names(target: dict[str, str]) -> list[str]:
    return re.findall(r"lsx_\w+", target["expr"])


def test_a_database_that_is_away(settings: ServeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app(settings), base_url=_LOCAL, raise_server_exceptions=False) as client:

        def away(*_: Any, **__: Any) -> Any:
            raise sa.exc.OperationalError("connect", {}, Exception("gone"))

        engine = client.app.state.engine  # type: ignore[attr-defined]
        monkeypatch.setattr(engine, "connect", away)
        for path in ("/v1/jobs", "/v1/jobs/job_1", "/v1/metrics"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert client.get("/v1/health/live").status_code == 200
        assert client.get("/v1/health/ready").json()["checks"]["database"] is False


def _form(video: Path, sound: Path, **job: Any) -> dict[str, Any]:
    return {
        "video": ("face.mp4", video.read_bytes(), "video/mp4"),
        "audio": ("voice.wav", sound.read_bytes(), "audio/wav"),
        "job": (None, json.dumps(job), "application/json"),
    }


def test_a_job_as_a_form(client: TestClient, video: Path, sound: Path) -> None:
    """Files and job in one request; the same key and files are the same job, other files are another request."""
    form, key = _form(video, sound, options={"steps": 2}), {"Idempotency-Key": "form"}
    made = client.post("/v1/jobs", files=form, headers=key)
    assert made.status_code == 202, made.text
    job = made.json()
    assert job["options"] == {"steps": 2}
    for given, path in zip(job["input"], (video, sound), strict=True):
        asset = client.get(f"/v1/assets/{given['asset_id']}").json()
        assert asset["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert client.post("/v1/jobs", files=form, headers=key).json()["id"] == job["id"]
    other = client.post("/v1/jobs", files=form | {"audio": form["video"]}, headers=key)
    assert other.json()["code"] == "idempotency_key_reused"


def test_forms_that_are_none(client: TestClient, video: Path, sound: Path, settings: ServeSettings) -> None:
    form = _form(video, sound)
    for wrong, status, code in (
        (form | {"picture": ("p.png", b"x", "image/png")}, 422, "invalid_request"),
        (form | {"job": (None, "[]", "application/json")}, 422, "invalid_request"),
        (form | {"job": (None, '{"steps": 3}', "application/json")}, 422, "invalid_request"),
        (form | {"video": ("face.mp4", b"no video", "video/mp4")}, 415, "unreadable_media"),
        ({"video": form["video"]}, 422, "invalid_request"),
    ):
        answer = client.post("/v1/jobs", files=wrong)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    whole = client.build_request("POST", "/v1/jobs", files=form)
    content, kind = whole.read(), whole.headers["Content-Type"]
    for body, given in (
        (content[: len(content) // 2], kind),
        (content, "multipart/form-data"),
        (content, kind + "x"),
        (b"--" + kind.partition("=")[2].encode() + b"\r\nX: " + b"y" * 9000, kind),
    ):
        answer = client.post("/v1/jobs", content=body, headers={"Content-Type": given})
        assert (answer.status_code, answer.json()["code"]) == (400, "no_form"), answer.text
    assert not [*settings.data.rglob("*.part")]
