"""Stores: a folder and an object store do the same."""

from __future__ import annotations

import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from obstore.store import MemoryStore, S3Store

from lsx.errors import UsageError
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from lsx.serving.store import FolderStore, ObjectStore, Store, free_bytes, store_at
from tests.serving.served import listening


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "store") if request.param == "folder" else ObjectStore(MemoryStore())


def _put(store: Store, key: str, content: bytes, folder: Path) -> None:
    file = folder / "file"
    file.write_bytes(content)
    store.put(key, file)
    assert not file.exists() or isinstance(store, FolderStore)


def test_put_fetch_read_remove(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    _put(store, "outputs/a/1.mp4", content, tmp_path)
    _put(store, "outputs/a/2.mp4", b"two", tmp_path)
    _put(store, "outputs/b/1.mp4", b"three", tmp_path)
    assert store.size("outputs/a/1.mp4") == len(content)
    assert store.size("outputs/none") is None
    assert b"".join(store.read("outputs/a/1.mp4")) == content
    assert b"".join(store.read("outputs/a/1.mp4", 10, 20)) == content[10:20]
    assert b"".join(store.read("outputs/a/1.mp4", 25590)) == content[25590:]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert store.fetch("outputs/a/1.mp4", scratch).read_bytes() == content
    assert [found.key for found in store.list("outputs/a")] == ["outputs/a/1.mp4", "outputs/a/2.mp4"]
    store.remove("outputs/a")
    assert [found.key for found in store.list("outputs")] == ["outputs/b/1.mp4"]
    store.remove("outputs/none")


def test_what_is_there_stays(store: Store, tmp_path: Path) -> None:
    _put(store, "outputs/a", b"first", tmp_path)
    _put(store, "outputs/a", b"second", tmp_path)
    assert b"".join(store.read("outputs/a")) == b"first"


def test_of_two_at_once_the_first_stays(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where neither saw the other's file before it wrote its own."""
    _put(store, "outputs/a", b"first", tmp_path)
    monkeypatch.setattr(ObjectStore, "size", lambda *_: None)
    _put(store, "outputs/a", b"second", tmp_path)
    assert b"".join(store.read("outputs/a")) == b"first"


def test_a_store_without_conditional_writes(tmp_path: Path) -> None:
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.headers["If-None-Match"])
            self._answer(501 if asked[-1] else 200)

        def do_HEAD(self) -> None:
            self._answer(404)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("ETag", '"a"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with listening(Handler) as port:
        config: Any = {"access_key_id": "a", "secret_access_key": "b", "region": "a"}
        config["endpoint"] = f"http://127.0.0.1:{port}"
        no_wait: Any = {"max_retries": 0}
        s3 = S3Store("b", config=config, client_options={"allow_http": True}, retry_config=no_wait)
        store = ObjectStore(s3)
        for _ in range(2):
            _put(store, "outputs/a", b"content", tmp_path)
    assert asked == ["*", None, None]


def test_free_space(tmp_path: Path) -> None:
    memory = ObjectStore(MemoryStore())
    assert free_bytes(memory, tmp_path / "none") is None
    assert free_bytes(memory, tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_what_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        b"".join(store.read("uploads/none"))
    with pytest.raises(FileNotFoundError):
        store.fetch("uploads/none", tmp_path).stat()


def test_addresses(tmp_path: Path) -> None:
    assert isinstance(store_at(None, tmp_path), FolderStore)
    assert isinstance(store_at("memory:///", tmp_path), ObjectStore)
    with pytest.raises(UsageError, match="address"):
        store_at("nothing://x", tmp_path)


@pytest.mark.parametrize("redirected", [True, False])
def test_the_page_may_play_what_a_store_gives(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch, redirected: bool
) -> None:
    """Its policy names the store's origin, and no other, where results are sent for from there."""
    for name, value in {"ENDPOINT": "http://objects:9000", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "a")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    settings = settings.model_copy(update={"store": "s3://bucket/prefix", "redirect_outputs": redirected})
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        policy = client.get("/").headers["Content-Security-Policy"]
    assert ("media-src 'self' blob: http://objects:9000;" in policy) == redirected
    assert ("media-src 'self' blob:;" in policy) != redirected
