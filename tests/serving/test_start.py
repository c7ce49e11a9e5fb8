"""What is found before any process is started, each as one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lsx.errors import UsageError
from lsx.serving import start
from lsx.serving.database import check_local
from lsx.serving.listening import bound
from lsx.serving.processes import locked
from lsx.serving.settings import ServeSettings
from lsx.serving.start import addressed, check_start, diagnose


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with bound("127.0.0.1", 0) as other:
        other.listen()
        yield other.getsockname()[1]


def _address(settings: ServeSettings) -> tuple[bool, str]:
    check = next(check for check in diagnose(settings) if check.name == "address")
    return check.fine, check.said


def test_a_taken_port(tmp_path: Path, taken: int) -> None:
    settings = ServeSettings(data=tmp_path, port=taken, workers="none")
    with pytest.raises(UsageError, match=f"port {taken} of 127.0.0.1 is taken; .* another --port"):
        check_start(settings, http=True)
    assert not (tmp_path / "jobs.sqlite").exists()
    check_start(settings, http=False)
    fine, said = _address(settings)
    assert (fine, "is taken" in said) == (False, True)
    with locked(tmp_path / "locks", "supervisor"):
        fine, said = _address(settings)
    assert (fine, said) == (True, f"http://127.0.0.1:{taken}/, where the lsx serve of this folder listens")


@pytest.mark.parametrize("host", ["192.0.2.1", "nonsense.invalid", "2001:db8::1"])
def test_a_host_that_is_not_this_machine(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host} is no address of this machine"):
        check_start(ServeSettings(data=tmp_path, host=host, port=0, workers="none"), http=True)


def test_a_port_of_its_own(tmp_path: Path) -> None:
    """Port 0 becomes a free one, which is held for the HTTP process and all that follow it."""
    with addressed(ServeSettings(data=tmp_path, port=0)) as settings:
        assert settings.port > 0
        assert settings.url == f"http://127.0.0.1:{settings.port}/"
        for _ in range(2):
            with bound(settings.host, settings.port) as listening:
                listening.listen()
                socket.create_connection((settings.host, settings.port)).close()
                with pytest.raises(UsageError, match="is taken"):
                    bound(settings.host, settings.port)


def test_a_sqlite_file_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far, link, mounts = tmp_path / "far", tmp_path / "link", tmp_path / "mounts"
    far.mkdir()
    link.symlink_to(far)
    mounts.write_text(f"disk / ext4 rw 0 0\nserver:/x {far} nfs4 rw 0 0\n")
    monkeypatch.setattr(start, "check_local", partial(check_local, mounts=mounts))
    for place in (far, link):
        settings = ServeSettings(data=tmp_path / "data", port=0, database=f"sqlite:///{place}/jobs.sqlite")
        with pytest.raises(UsageError, match=r"on a network's file system \(nfs4"):
            check_start(settings, http=True)
    check_start(ServeSettings(data=tmp_path / "data", port=0, workers="none"), http=True)


def test_the_doctor_makes_no_data_folder(tmp_path: Path) -> None:
    settings = ServeSettings(data=tmp_path / "a" / "data", port=0, workers="none")
    checks = {check.name: check for check in diagnose(settings)}
    assert list(tmp_path.iterdir()) == []
    assert [name for name, check in checks.items() if not check.fine] == ["bundle"]
    assert checks["data"].said.startswith(f"{tmp_path}/a/data, ")
