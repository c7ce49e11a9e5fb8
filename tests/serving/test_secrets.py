"""Keys, passwords and secrets: in no log, no answer, no metric and no output of a command."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from lsx.errors import UsageError
from lsx.serving.api_keys import KeyBook
from lsx.serving.database import database_url, engine_for
from lsx.serving.settings import ServeSettings, settings_of
from tests.serving.served import listening, until
from tests.torture.harness import Client, fake_server

_PASSWORD, _ACCESS, _SECRET, _TOKEN = "pw-Zk7Hq2Lx", "AKIAZk7Hq2Lx9Pv4", "s3-Wm3Tn8Rb5Yc1", "query-Jd6Fv0Gs"
_HOOK = "whsec_" + base64.b64encode(b"hook-Xe4Bu9Ko-0123456789abcdef01").decode()


@pytest.fixture
def bucket() -> Iterator[int]:
    """An object store that refuses whoever asks."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None: ...

    with listening(Handler) as port:
        yield port


def _cli(settings: ServeSettings, file: Path, *arguments: str) -> str:
    """What a command prints; the settings come from a file."""
    file.write_text(
        f'data = "{settings.data}"\ndatabase = "{settings.database}"\nhook_secret = "{_HOOK}"\nlog_level = "DEBUG"\n'
    )
    command = [sys.executable, "-m", "lsx", *arguments, "--config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def _calls(url: str, client: Client, key: str) -> str:
    """Calls with keys that are right and wrong, wherever a caller may put them; all that was answered."""
    wrong = f"{key[:-4]}none"
    answers = []
    with httpx.Client(base_url=url) as api:
        for text in (key, wrong):
            ways: list[dict[str, Any]] = [
                {"headers": {"Authorization": f"Bearer {text}"}},
                {"headers": {"X-Api-Key": text}},
                {"headers": {"Cookie": f"lsx_key={text}"}},
                {"params": {"key": text, "api_key": text}},
            ]
            for way in ways:
                answers += [api.request(method, "/v1/jobs", **way) for method in ("GET", "PUT")]
            answers.append(api.post("/login", json={"key": text, "more": text}))
            answers.append(api.post("/login", json={"key": wrong}))
        own = {"X-Api-Key": key}
        secret_url = f"https://files.example/a.mp4?token={_TOKEN}"
        body = client.body(0)
        for change in (
            {"webhook_url": f"http://127.0.0.1/hook?token={_TOKEN}"},
            {"webhook_url": f"https://me:{_TOKEN}@hooks.example/"},
            {"input": [{"type": "video", "url": secret_url}, {"type": "audio", "url": secret_url}]},
            {"input": [{"type": "video", "url": 7, "token": _TOKEN}]},
            {"unknown": _TOKEN},
        ):
            answers.append(api.post("/v1/jobs", json=body | change, headers=own))
        answers += [api.get(f"/nothing?token={_TOKEN}"), api.get("/v1/metrics", headers=own)]
        answers.append(api.post("/v1/assets", content=b"no media", params={"filename": "a"}, headers=own))
    return "\n".join(f"{answer.status_code} {dict(answer.headers)} {answer.text}" for answer in answers)


class _KeyedClient(Client):
    """A client with a key."""

    def __init__(self, served: Any, folder: Path, key: str) -> None:
        self._key = key
        super().__init__(served, folder)

    def once(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {}) | {"X-Api-Key": self._key}
        return super().once(method, path, headers=headers, **more)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_no_secret_is_told(
    settings: ServeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    address = sa.make_url(str(settings.database)).set(password=_PASSWORD).render_as_string(hide_password=False)
    settings = settings.model_copy(update={"database": address})
    for name, value in {"AWS_ACCESS_KEY_ID": _ACCESS, "AWS_SECRET_ACCESS_KEY": _SECRET, "AWS_REGION": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{bucket}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    update = {"port": 0, "workers": "cpu:1", "hook_secret": _HOOK, "log_level": "DEBUG", "allow_hook": ("127.0.0.1",)}
    settings = settings.model_copy(update=update | {"hook_pauses": ()})
    engine = engine_for(address)
    key = KeyBook(engine).create("test", ["admin"])[1]
    with fake_server(settings) as served:
        client = _KeyedClient(served, settings.data / "media", key)
        job = client.submit(0, webhook_url=f"http://127.0.0.1:9/hook?token={_TOKEN}")["id"]
        client.ended(job)
        until(lambda: 'status="COMPLETED"} 1.0' in client.ask("GET", "/v1/metrics").text)
        until(lambda: _ended(engine, f"hook-{job}-completed-0"))
        told = _calls(served.url, client, key)
        client.close()
    engine.dispose()
    file = tmp_path / "serve.toml"
    told += _cli(settings, file, "serve", "--print-config")
    told += _cli(settings, file, "serve", "doctor", "--store", "s3://bucket/lsx")
    told += (settings.data / "log").read_text()
    assert '"job is done"' in told
    assert "403" in told
    secrets = (_PASSWORD, _ACCESS, _SECRET, _TOKEN, _HOOK, _HOOK.removeprefix("whsec_"), key.split("_", 2)[2][:-4])
    assert [secret for secret in secrets if secret in _without_cookie(told, key)] == []


def _ended(engine: sa.Engine, workflow: str) -> bool:
    with engine.connect() as connection:
        query = sa.text("SELECT status FROM dbos.workflow_status WHERE workflow_uuid = :workflow")
        return connection.execute(query, {"workflow": workflow}).scalar() == "SUCCESS"


def _without_cookie(told: str, key: str) -> str:
    """Less the one answer that must have the key: that of /login, to the browser that gave it."""
    return told.replace(f"lsx_key={key};", "")


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{_PASSWORD}@db.example/lsx",
        f"postgresql://db.example/lsx?user=me&password={_PASSWORD}&sslmode=require",
        f"postgresql://me@db.example/lsx?sslpassword={_PASSWORD}",
    ],
)
def test_a_database_is_shown_without_its_password(address: str) -> None:
    shown = ServeSettings(database=address).shown()["database"]
    assert _PASSWORD not in shown
    assert "db.example/lsx" in shown


def test_errors_of_settings_have_no_secret(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        database_url(f"postgresql://me:{_PASSWORD}/lsx", tmp_path)
    assert _PASSWORD not in f"{error.value}{error.value.__cause__}"
    file = tmp_path / "serve.toml"
    file.write_text(f'hook_secret = ["{_TOKEN}"]\n')
    with pytest.raises(UsageError, match="hook_secret is hidden") as refused:
        settings_of(file)
    assert _TOKEN not in f"{refused.value}{refused.value.__cause__}"
