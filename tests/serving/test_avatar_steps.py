"""A worker's steps for avatars where others are at the same one: another worker, or who removes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from lsx.serving.avatar_steps import AvatarSteps
from lsx.serving.database import PREPARATIONS, engine_for
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from lsx.serving.statuses import Rejected
from lsx.serving.store import store_at
from tests.serving.test_avatars import written_avatar

_FACTS = {"frames": 1, "seconds": 0.04, "width": 8, "height": 8, "source": "source", "bytes": 20}

Prepare = Callable[..., Any]


class _Fenced(BaseException):
    """What a mark raises where the workflow is another's now."""


@pytest.fixture
def avatar(settings: ServeSettings, video: Path) -> Iterator[tuple[TestClient, str]]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        sent = client.post("/v1/avatars", content=video.read_bytes(), headers={"Content-Type": "video/mp4"})
        yield client, str(sent.json()["id"])


@pytest.fixture
def steps(
    settings: ServeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Prepare], AvatarSteps]]:
    """A worker whose preparations are a test's."""
    engine = engine_for(str(settings.database))
    lipsync: Any = SimpleNamespace(bundle=SimpleNamespace(path="bundle"), backend="none")
    monkeypatch.setattr("lsx.serving.avatar_steps.encoder_digest", lambda _: "a" * 16)
    monkeypatch.setattr("lsx.serving.avatar_steps._facts", lambda _: _FACTS)

    def worker(prepare: Prepare) -> AvatarSteps:
        monkeypatch.setattr("lsx.serving.avatar_steps.prepare_avatar", prepare)
        return AvatarSteps(settings, engine, store_at(None, settings.data), lipsync, tmp_path / "work" / "cpu-0")

    yield worker
    engine.dispose()


def _prepared(_: Any, source: Path, output: Path, **__: Any) -> Any:
    assert source.stat().st_size > 100
    return SimpleNamespace(path=written_avatar(output, 10))


def _files(settings: ServeSettings) -> list[Path]:
    return sorted(path for path in (settings.data / "store" / "avatars").rglob("*") if path.is_file())


def test_it_is_prepared_once(
    avatar: tuple[TestClient, str], steps: Callable[[Prepare], AvatarSteps], settings: ServeSettings
) -> None:
    """Of two workers the first one's counts, and the second one's files go."""
    _, number = avatar
    first: list[Path] = []

    def while_another_does(bundle: Any, source: Path, output: Path, **more: Any) -> Any:
        if not first:
            first.append(Path())
            first[0] = steps(_prepared).folder(number, lambda _: None)
            output.parent.mkdir()  # which the other one shared with this, and removed
        return _prepared(bundle, source, output, **more)

    assert steps(while_another_does).folder(number, lambda _: None) == first[0]
    assert {path.parent for path in _files(settings)} == {first[0]}
    never: Any = None
    assert steps(never).folder(number, lambda _: None) == first[0]


def test_it_is_removed_while_it_is_prepared(
    avatar: tuple[TestClient, str], steps: Callable[[Prepare], AvatarSteps], settings: ServeSettings
) -> None:
    client, number = avatar

    def while_it_is_removed(*arguments: Any, **more: Any) -> Any:
        assert client.delete(f"/v1/avatars/{number}").status_code == 204
        return _prepared(*arguments, **more)

    worker = steps(while_it_is_removed)
    for _ in range(2):
        with pytest.raises(Rejected, match="avatar_deleted"):
            worker.folder(number, lambda _: None)
    assert _files(settings) == []
    with client.app.state.engine.connect() as connection:  # type: ignore[attr-defined]
        assert connection.execute(sa.select(PREPARATIONS)).all() == []


def test_a_mark_that_raises_ends_the_preparation(
    avatar: tuple[TestClient, str], steps: Callable[[Prepare], AvatarSteps], settings: ServeSettings
) -> None:
    went_on, never = threading.Event(), threading.Event()

    def long(*_: Any, progress: Callable[[int, int], None], **__: Any) -> None:
        for frame in range(5000):
            progress(frame, 5000)
            never.wait(0.001)
        went_on.set()

    def mark(_: Any) -> None:
        raise _Fenced

    with pytest.raises(_Fenced):
        steps(long).folder(avatar[1], mark)
    assert not went_on.is_set()
    assert _files(settings) == []
    assert list((settings.data.parent / "work" / "cpu-0").iterdir()) == []
