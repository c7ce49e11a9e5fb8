"""Stores: a folder and an object store do the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import MemoryStore

from lsx.errors import UsageError
from lsx.serving.store import FolderStore, ObjectStore, Store, store_at


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
