"""Requests as only an attacker or a broken client makes them: each gets an answer that says what is wrong."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from lsx.serving.api_keys import KeyBook
from lsx.serving.database import database_url, engine_for
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from lsx.serving.upload_labels import file_name_of, length_of, media_type_of

_LOCAL = "http://127.0.0.1:8000"
_ASSETS = {"video": "asset_" + "0" * 26, "audio": "asset_" + "1" * 26}


@pytest.fixture
def client(settings: ServeSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=_LOCAL) as client:
        yield client


def _body(**more: Any) -> dict[str, Any]:
    return {"input": [{"type": kind, "asset_id": number} for kind, number in _ASSETS.items()]} | more


def _form(*parts: tuple[str, str, bytes]) -> dict[str, Any]:
    """A form's body and its Content-Type; each part has its Content-Disposition's end, further headers, content."""
    pieces = [
        f"--B\r\nContent-Disposition: form-data; name={shown}\r\n{more}\r\n".encode() + content + b"\r\n"
        for shown, more, content in parts
    ]
    return {"content": b"".join(pieces) + b"--B--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=B"}}


@pytest.mark.parametrize("cursor", ["²³.job_1", "1.x\0", "1.", "1.job_1 OR 1=1", "9" * 16 + ".job_1"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/avatars"])
def test_cursors_of_no_list(client: TestClient, path: str, cursor: str) -> None:
    answer = client.get(path, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, "cursor")


@pytest.mark.parametrize("number", ["job_%00", "%00", "job_%C2%B2", "x" * 5000])
@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/avatars/", "/v1/assets/"])
def test_ids_of_nothing(client: TestClient, path: str, number: str) -> None:
    assert client.get(path + number).status_code == 404
    if path != "/v1/assets/":
        assert client.delete(path + number).status_code == 404


def test_labels_of_an_upload(client: TestClient, sound: Path, settings: ServeSettings) -> None:
    """A form's headers are bytes as they came: what is no media type is none, and a name has no controls."""
    shown = 'audio; filename="a\0\x01\x7f\x85\r\nb.wav"'.replace("\r\n", "")
    job = ("job", "", json.dumps({"input": [_body()["input"][0]]}).encode())
    made = client.post(
        "/v1/jobs", **_form((shown, "Content-Type: audio/wav\nX-Injected: 1\r\n", sound.read_bytes()), job)
    )
    assert made.json()["code"] == "no_such_asset", made.text
    number = next((settings.data / "store" / "uploads").iterdir()).name
    content = client.get(f"/v1/assets/{number}/content", headers={"Range": f"bytes={'9' * 5000}-"})
    assert content.status_code == 416
    content = client.get(f"/v1/assets/{number}/content", headers={"Range": f"bytes=0-{'9' * 5000}"})
    assert (content.status_code, content.content) == (206, sound.read_bytes())
    assert content.headers["content-type"] == "audio/mpeg"
    assert content.headers["content-disposition"] == "inline; filename*=UTF-8''ab.wav"
    named = client.post("/v1/assets", params={"filename": "\0a\tb\u2028.wav"}, content=sound.read_bytes())
    assert (named.status_code, named.json()["filename"]) == (201, "ab.wav")


@pytest.mark.parametrize(
    "text", ["", "video", "video/", "/mp4", "video/mp4\r\nX: 1", "video/mp4\n", "vidéo/mp4", "a/b; c", "a/" + "b" * 200]
)
def test_what_is_no_media_type(text: str) -> None:
    assert media_type_of(text) == "application/octet-stream"


def test_what_is_a_media_type() -> None:
    for text in ("video/mp4", 'video/mp4; codecs="avc1.4d, \\"x"', "audio/x-wav;a=b ;; c=d;", "application/vnd.a+b"):
        assert media_type_of(f" {text}") == text
    assert media_type_of("a/b" + ";  " * 60 + "!") == "application/octet-stream"
    assert (length_of("12"), length_of("²"), length_of("-1"), length_of("9" * 5000)) == (12, None, None, None)
    assert file_name_of("Ａnna \u00e9\u3000.mp4") == "Ａnna \u00e9\u3000.mp4"


@pytest.mark.parametrize("job", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff", b'{"a":"\\ud800"}'])
def test_a_forms_job_that_is_no_json(client: TestClient, job: bytes) -> None:
    answer = client.post("/v1/jobs", **_form(("job", "", job)))
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, "job")


@pytest.mark.parametrize("steps", [True, "3"])
def test_a_forms_numbers_are_numbers(client: TestClient, steps: Any) -> None:
    job = json.dumps(_body(options={"steps": steps})).encode()
    answer = client.post("/v1/jobs", **_form(("job", "", job)))
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, "options.steps")


@pytest.mark.parametrize(
    "url",
    [
        "https://1.1.1.1/ü.mp4",
        "https://bücher.example/a.mp4",
        "https://a..b/",
        f"https://{'a' * 64}.example/",
        "https://example.com/a b",
        "https://example.com/\0",
        "https://[broken",
    ],
)
def test_urls_that_cannot_be_asked(settings: ServeSettings, url: str) -> None:
    wide = settings.model_copy(update={"allow_url": ("1.1.1.1", "example.com", "bücher.example", "a..b")})
    with TestClient(create_app(wide), base_url=_LOCAL) as client:
        body = _body(input=[{"type": "video", "url": url}, _body()["input"][1]])
        for answer, where in (
            (client.post("/v1/jobs", json=body), "input.0.url"),
            (client.post("/v1/jobs", json=_body(webhook_url=url)), "webhook_url"),
        ):
            assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, where), answer.text


def test_what_nobody_thought_of(settings: ServeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug's answer is a problem without its words, which the log has."""
    with TestClient(create_app(settings), base_url=_LOCAL, raise_server_exceptions=False) as client:
        book = client.app.state.book  # type: ignore[attr-defined]

        def broken(*_: Any) -> Any:
            raise RuntimeError("an inner word")

        monkeypatch.setattr(book, "page", broken)
        with capture_logs() as logged:
            answer = client.get("/v1/jobs")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "internal_error"
    assert "inner" not in answer.text
    line = next(line for line in logged if line["event"] == "a request failed")
    assert (line["route"], str(line["exc_info"])) == ("/v1/jobs", "an inner word")


def test_a_full_data_folder(settings: ServeSettings, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads come in there, also those for an object store; and it may become full while one comes."""
    full = settings.model_copy(update={"store": "memory:///", "min_free_bytes": 1 << 60})
    settings.data.mkdir()
    with TestClient(create_app(full), base_url=_LOCAL) as client:
        answer = client.post("/v1/assets", content=sound.read_bytes())
        assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
        assert client.get("/v1/health/ready").json()["checks"]["space"] is False
    with TestClient(create_app(settings), base_url=_LOCAL) as client:

        def no_more(_: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "fsync", no_more)
        answer = client.post("/v1/assets", content=sound.read_bytes())
        assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
        assert list((settings.data / "incoming").iterdir()) == []


@pytest.mark.parametrize("host", ["127.evil.example", "localhost.evil.example", "[::2]", "example.com"])
def test_a_name_that_leads_here(client: TestClient, host: str) -> None:
    """A page of that name would be this server's own page to a browser, once the name leads to loopback."""
    own = {"Host": f"{host}:8000", "Origin": f"http://{host}:8000"}
    assert client.get("/v1/jobs", headers=own).status_code == 403
    assert client.get("/v1/jobs", headers={"Host": "127.0.0.2:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": _LOCAL, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": _LOCAL}, 200),
        ({"Origin": "https://behind.a.proxy", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_the_cookie_is_for_the_own_page(
    client: TestClient, settings: ServeSettings, headers: dict[str, str], status: int
) -> None:
    """Cookies know no port: another server's page of this machine would send it, too."""
    engine = engine_for(database_url(settings.database, settings.data))
    _, text = KeyBook(engine).create("page", ["jobs"], None)
    engine.dispose()
    cookie = {"Cookie": f"lsx_key={text}"}
    taken = client.post("/v1/jobs", headers=headers | cookie, json=_body()).status_code
    assert taken == (422 if status == 200 else 403)  # let in, its uploads are looked for
    assert client.get("/v1/jobs", headers=headers | cookie).status_code == 200
    assert client.post("/v1/jobs", json=_body(), headers=headers | {"X-Api-Key": text}).status_code == 422


def test_an_empty_key_is_none(client: TestClient) -> None:
    """As a program sends it whose setting is empty."""
    assert client.get("/v1/jobs", headers={"X-Api-Key": ""}).status_code == 200
