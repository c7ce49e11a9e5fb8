"""Avatars over HTTP, on SQLite and PostgreSQL: taken in, named by jobs, listed, removed. No worker prepares them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from obstore.store import MemoryStore

from lsx.bundle.manifest import FileEntry
from lsx.errors import IntegrityError
from lsx.faces.avatar_folder import AVATAR
from lsx.faces.avatar_manifest import AVATAR_SCHEMA, AvatarManifest
from lsx.faces.track_file import VideoIdentity
from lsx.serving.api_keys import KeyBook
from lsx.serving.avatar_files import AvatarFiles
from lsx.serving.avatar_keeper import AvatarKeeper
from lsx.serving.database import AVATARS, HOUR_MS, JOBS, PREPARATIONS, engine_for, now_ms
from lsx.serving.gpu_queue import dbos_client
from lsx.serving.heartbeat import beating
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from lsx.serving.store import FolderStore, ObjectStore, store_at

_LOCAL = "http://127.0.0.1:8000"


@pytest.fixture
def client(settings: ServeSettings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url=_LOCAL) as client:
        yield client


@pytest.fixture
def engine(settings: ServeSettings) -> Iterator[sa.Engine]:
    engine = engine_for(str(settings.database))
    yield engine
    engine.dispose()


def _upload(client: TestClient, path: Path, **headers: str) -> str:
    answer = client.post("/v1/assets", params={"filename": path.name}, content=path.read_bytes(), headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _avatar(client: TestClient, video: Path, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/avatars", json={"asset_id": _upload(client, video)} | more)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _job(avatar: str, audio: str, **options: Any) -> dict[str, Any]:
    inputs = [{"type": "avatar", "avatar_id": avatar}, {"type": "audio", "asset_id": audio}]
    return {"input": inputs, "options": {"steps": 1} | options}


def _enter(engine: sa.Engine, settings: ServeSettings, avatar: str, encoder: str, age_ms: int = 0) -> Path:
    """A preparation as a worker would enter it; its folder."""
    prefix = f"avatars/{avatar}/{encoder}/prep_1"
    folder = settings.data / "store" / prefix
    folder.mkdir(parents=True)
    (folder / AVATAR).write_text("{}")
    facts = {"frames": 15, "seconds": 0.6, "width": 64, "height": 48, "source": "source", "bytes": 2}
    with engine.begin() as connection:
        at = now_ms(connection) - age_ms
        values = {"avatar": avatar, "encoder": encoder, "prefix": prefix, "facts": facts}
        connection.execute(PREPARATIONS.insert().values(**values, created_ms=at, used_ms=at))
    return folder


def test_an_avatar_is_taken_in_and_told_of(
    client: TestClient, video: Path, settings: ServeSettings, engine: sa.Engine
) -> None:
    answer = client.post("/v1/avatars", json={"asset_id": _upload(client, video), "name": "Anna", "end": "0:00.5"})
    avatar = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, avatar["urls"]["get"])
    assert (avatar["name"], avatar["status"], avatar["queue_position"]) == ("Anna", "PENDING", 1)
    assert (avatar["options"], avatar["width"], avatar["bundle"]) == ({"end": "0:00.5"}, 64, None)
    assert client.get(avatar["urls"]["get"], params={"wait": 0.01}).json() == avatar
    assert 'lsx_avatars{status="PENDING"} 1.0' in client.get("/v1/metrics").text
    for encoder in ("a" * 16, "b" * 16):
        _enter(engine, settings, avatar["id"], encoder)
    ready = client.get(avatar["urls"]["get"], params={"wait": 60}).json()
    assert (ready["status"], ready["frames"], ready["seconds"], ready["error"]) == ("READY", 15, 0.6, None)
    assert ready["bundle"] == "b" * 16
    assert ready["ready_at"] is not None
    assert 'lsx_avatars{status="READY"} 1.0' in client.get("/v1/metrics").text


def test_its_video_is_given_back_whole_and_in_parts(
    client: TestClient, video: Path, settings: ServeSettings, engine: sa.Engine
) -> None:
    """The upload's, and, once that is gone, what its latest preparation keeps."""
    asset = _upload(client, video)
    avatar = client.post("/v1/avatars", json={"asset_id": asset}).json()
    address, whole = avatar["urls"]["video"], video.read_bytes()
    first = client.get(address)
    assert (first.status_code, first.content, first.headers["content-type"]) == (200, whole, "video/mp4")
    (settings.data / "store" / "uploads" / asset).unlink()
    gone = client.get(address)
    assert (gone.status_code, gone.json()["code"]) == (410, "expired")
    for encoder in ("a" * 16, "b" * 16):
        (_enter(engine, settings, avatar["id"], encoder) / "source").write_bytes(encoder.encode() + whole)
    part = client.get(address, headers={"Range": "bytes=14-19"})
    assert (part.status_code, part.content) == (206, b"bb" + whole[:4])
    assert client.get(f"/v1/avatars/avatar_{'0' * 26}/video").status_code == 404


def test_a_video_in_the_request(client: TestClient, video: Path, sound: Path) -> None:
    def post(path: Path, **query: str) -> Any:
        headers = {"Content-Type": "video/mp4", "Idempotency-Key": "anna"}
        query = {"filename": "a.mp4", "name": "Anna"} | query
        return client.post("/v1/avatars", params=query, content=path.read_bytes(), headers=headers)

    first = post(video, start="0.2").json()
    assert (first["name"], first["status"], first["options"]) == ("Anna", "PENDING", {"start": "0.2"})
    assert post(video, start="0.2").json()["id"] == first["id"]
    assert post(video, start="0.3").json()["code"] == "idempotency_key_reused"
    assert post(Path(__file__)).json()["code"] == "unreadable_media"
    no_picture = client.post("/v1/avatars", content=sound.read_bytes(), headers={"Content-Type": "audio/wav"})
    assert (no_picture.status_code, no_picture.json()["code"]) == (422, "no_video")
    assert [avatar["id"] for avatar in client.get("/v1/avatars").json()["data"]] == [first["id"]]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"fps": 300}, "fps"),
        ({"start": 2, "end": 1}, "end"),
        ({"speaker": "3"}, "speaker"),
        ({"speaker": 3}, "speaker"),
        ({"proxy": True}, "proxy"),
        ({"faces": "/etc/passwd"}, "faces"),
        ({"asset_id": "../x"}, "asset_id"),
        ({"name": "n" * 121}, "name"),
    ],
    ids=str,
)
def test_refused_requests(client: TestClient, video: Path, change: Any, where: str) -> None:
    asset = _upload(client, video)
    answer = client.post("/v1/avatars", json={"asset_id": asset} | change)
    assert answer.status_code == 422, answer.text
    assert any(error["loc"].startswith(where) for error in answer.json()["errors"]), answer.json()
    if "asset_id" not in change:
        video_type = {"Content-Type": "video/mp4"}
        assert client.post("/v1/avatars", params=change, content=b"x", headers=video_type).status_code == 422
    assert client.post("/v1/avatars?start=1", json={"asset_id": asset}).status_code == 422
    no_json = client.post("/v1/avatars", content=b"{", headers={"Content-Type": "application/json"})
    assert (no_json.status_code, no_json.json()["code"]) == (400, "no_json")
    assert client.get("/v1/avatars").json()["data"] == []


def test_pages(client: TestClient, video: Path) -> None:
    asset = _upload(client, video)
    made = [client.post("/v1/avatars", json={"asset_id": asset}).json()["id"] for _ in range(3)]
    first = client.get("/v1/avatars", params={"limit": 2}).json()
    second = client.get("/v1/avatars", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [avatar["id"] for avatar in first["data"] + second["data"]] == made[::-1]
    assert second["next_cursor"] is None
    assert client.get("/v1/avatars?cursor=nonsense").status_code == 422


def test_preparations_count_in_the_queue(settings: ServeSettings, video: Path, sound: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_queued": 2})), base_url=_LOCAL) as client:
        avatar = _avatar(client, video)
        body = _job(avatar["id"], _upload(client, sound))
        job = client.post("/v1/jobs", json=body).json()
        assert (job["queue_position"], job["input"][0]["avatar_id"]) == (2, avatar["id"])
        refused = client.post("/v1/avatars", json={"asset_id": _upload(client, video)})
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert client.post("/v1/jobs", json=body).status_code == 429
        client.delete(avatar["urls"]["get"])
        assert client.get(job["urls"]["get"]).json()["queue_position"] == 1


def test_jobs_with_an_avatar_are_checked(
    client: TestClient, video: Path, sound: Path, engine: sa.Engine, settings: ServeSettings
) -> None:
    avatar, audio = _avatar(client, video, speaker="left", fps=30), _upload(client, sound)
    for fixed in ({"start": 0.2}, {"end": 0.4}, {"fps": "source"}, {"speaker": "right"}):
        answer = client.post("/v1/jobs", json=_job(avatar["id"], audio, **fixed))
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, f"options.{next(iter(fixed))}")
        assert "the avatar was prepared with" in answer.json()["detail"]
    same = client.post("/v1/jobs", json=_job(avatar["id"], audio, fps="30", speaker="left"))
    assert same.status_code == 202, same.text
    body = _job(avatar["id"], audio)
    named, heard = body["input"]
    video_too = {"type": "video", "asset_id": audio}
    as_video = {**named, "type": "video"}
    for inputs in ([named], [named, video_too, heard], [as_video, heard], [{**named, "asset_id": audio}, heard]):
        assert client.post("/v1/jobs", json=body | {"input": inputs[:2]}).status_code == 422
    none = client.post("/v1/jobs", json=_job("avatar_" + "0" * 26, audio))
    assert none.json()["code"] == "no_such_avatar"
    dbos_client(engine).cancel_workflow(avatar["id"])  # as a deadline does
    failed = client.get(avatar["urls"]["get"], params={"wait": 60}).json()
    assert (failed["status"], failed["error"]["code"]) == ("FAILED", "canceled")
    assert client.post("/v1/jobs", json=body).json()["code"] == "avatar_failed"
    _enter(engine, settings, avatar["id"], "a" * 16)
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_another_owners_avatar(settings: ServeSettings, engine: sa.Engine, video: Path, sound: Path) -> None:
    keys = KeyBook(engine)
    own, other, reader = (
        {"X-Api-Key": keys.create(name, [scope])[1]} for name, scope in [("a", "jobs"), ("b", "jobs"), ("c", "read")]
    )
    with TestClient(create_app(settings), base_url=_LOCAL) as client:
        request = {"asset_id": _upload(client, video, **own)}
        assert client.post("/v1/avatars", json=request, headers=reader).status_code == 403
        assert client.post("/v1/avatars", json=request, headers=other).json()["code"] == "no_such_asset"
        avatar = client.post("/v1/avatars", json=request, headers=own).json()
        place = avatar["urls"]["get"]
        assert client.get(place, headers=other).status_code == client.delete(place, headers=other).status_code == 404
        assert client.get("/v1/avatars", headers=other).json()["data"] == []
        body = _job(avatar["id"], _upload(client, sound, **other))
        assert client.post("/v1/jobs", json=body, headers=other).json()["code"] == "no_such_avatar"
        assert client.get(place, headers=own).status_code == 200


def test_a_removed_avatar(
    client: TestClient, video: Path, sound: Path, settings: ServeSettings, engine: sa.Engine
) -> None:
    """Its files go at once, but for those that a running job reads."""
    first, second = _avatar(client, video), _avatar(client, video)
    folders = [_enter(engine, settings, avatar["id"], "a" * 16) for avatar in (first, second)]
    job = client.post("/v1/jobs", json=_job(second["id"], _upload(client, sound))).json()
    with engine.begin() as connection:
        connection.execute(JOBS.update().where(JOBS.c.id == job["id"]).values(started_ms=1))
    assert [client.delete(avatar["urls"]["get"]).status_code for avatar in (first, second)] == [204, 204]
    assert [folder.exists() for folder in folders] == [False, True]
    assert client.get(first["urls"]["get"]).status_code == client.delete(first["urls"]["get"]).status_code == 404
    with engine.connect() as connection:
        assert connection.execute(sa.select(PREPARATIONS)).all() == []
    assert dbos_client(engine).list_workflows(workflow_ids=[first["id"]]) == []


def test_what_the_keeper_removes(client: TestClient, video: Path, settings: ServeSettings, engine: sa.Engine) -> None:
    """Preparations for bundles that nobody has, but never the only one; files that no preparation names."""
    both, only = _avatar(client, video)["id"], _avatar(client, video)["id"]
    long_ago = 2 * HOUR_MS
    replaced = _enter(engine, settings, both, "a" * 16, long_ago)
    kept = [_enter(engine, settings, both, "b" * 16, long_ago), _enter(engine, settings, only, "a" * 16, long_ago)]
    orphans = [settings.data / "store" / "avatars" / "avatar_1" / "b" / "prep_2", kept[0].with_name("prep_2")]
    for folder in orphans:
        folder.mkdir(parents=True)
        (folder / "source").touch()
        os.utime(folder / "source", (1, 1))
    strange = [folder / ".DS_Store" for folder in kept[0].parents[:3]]  # up to avatars itself
    for file in strange:
        file.touch()
        os.utime(file, (1, 1))
    keeper = AvatarKeeper(engine, store_at(None, settings.data), 60)
    with engine.connect() as connection:
        now = now_ms(connection)
    keeper.remove_unused(now)  # no worker is there
    assert replaced.exists()
    with beating(engine, "here/gpu:0", "worker", lambda: {"encoder": "b" * 16}):
        keeper.remove_unused(now)
    keeper.remove_orphans(now)
    assert [folder.exists() for folder in (replaced, *kept, *orphans)] == [False, True, True, False, True]
    with engine.begin() as connection:
        connection.execute(AVATARS.update().values(started_ms=now))
    dbos_client(engine).cancel_workflow(both)
    keeper.sweep()
    keeper.remove_orphans(now)
    assert [folder.exists() for folder in (*kept, *orphans)] == [True, True, False, False]
    assert all(file.exists() for file in strange)
    with engine.connect() as connection:
        assert connection.execute(sa.select(AVATARS.c.id).where(AVATARS.c.finished_ms.is_(None))).scalars().all() == [
            only
        ]


def written_avatar(folder: Path, size: int) -> Path:
    """A folder with the files of an avatar, of `size` bytes each."""
    folder.mkdir()
    for name in ("source", "faces.safetensors"):
        (folder / name).write_bytes(os.urandom(size))
    manifest = AvatarManifest(
        schema_version=AVATAR_SCHEMA,
        lsx_version="0",
        created="now",
        resolution=64,
        encoder="e",
        backend="b",
        video=VideoIdentity(name="v", frames=1, width=8, height=8, bytes=size),
        start=0,
        end=None,
        fps="25",
        speaker="largest",
        frames=1,
        choices=(),
        source=FileEntry.of(folder, "source"),
        proxy=None,
        faces=FileEntry.of(folder, "faces.safetensors"),
        places=(),
    )
    (folder / AVATAR).write_text(manifest.model_dump_json())
    return folder


def test_files_of_an_object_store(tmp_path: Path) -> None:
    """Fetched once, checked, and the longest unused of them given up."""
    memory = MemoryStore()
    store = ObjectStore(memory)
    files = AvatarFiles(store, tmp_path / "cache", 5000)
    for number in range(3):
        files.put(f"avatars/{number}", written_avatar(tmp_path / str(number), 2000))
    folders = []
    for number in range(3):
        folders.append(files.folder(f"avatars/{number}"))
        os.utime(folders[-1], (number, number))
    assert sorted(path.name for path in folders[2].iterdir()) == [AVATAR, "faces.safetensors", "source"]
    assert [folder.exists() for folder in folders] == [False, True, True]
    store.remove("avatars/1/source")
    assert files.folder("avatars/1") == folders[1]
    store.remove("avatars/0/source")
    with pytest.raises(IntegrityError, match="source: is gone"):
        files.folder("avatars/0")
    memory.put("avatars/0/source", b"another")
    with pytest.raises(IntegrityError, match="source: has changed"):
        files.folder("avatars/0")
    assert not list((tmp_path / "cache").glob("*avatars-0*"))
    in_place = AvatarFiles(FolderStore(tmp_path / "store"), tmp_path / "cache", 0)
    with pytest.raises(IntegrityError, match="is gone"):
        in_place.folder("avatars/4")
    in_place.put("avatars/4", written_avatar(tmp_path / "4", 10))
    assert in_place.folder("avatars/4") == tmp_path / "store" / "avatars" / "4"
