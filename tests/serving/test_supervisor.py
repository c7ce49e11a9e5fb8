"""The supervisor: what it starts again and when it gives up, renewing, draining, and what its own death leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lsx.errors import EngineError
from lsx.serving.settings import ServeSettings
from lsx.serving.supervisor import Place, Supervisor
from tests.serving.served import until
from tests.torture.harness import WORKER, Client, fake_server

_PAUSES = "_FIRST_PAUSE", "_LONGEST_PAUSE"


class _Supervised:
    """A supervisor of one short-lived process, turned by the test."""

    def __init__(self, settings: ServeSettings) -> None:
        self.data = settings.data
        self.place = Place("tests.serving.short_lived", "cpu:0", renewed=True, pause=0.01)
        self.supervisor = Supervisor(settings, [self.place])

    def starts(self) -> list[list[str]]:
        """Name, number and whom it replaces, of every process that was started."""
        file = self.data / "starts"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def turned_until(self, ready: Callable[[], bool]) -> None:
        def turn() -> bool:
            self.supervisor._turn()
            return ready()

        until(turn)

    def kill(self) -> None:
        assert self.place.child is not None
        self.place.child.kill()
        self.place.child.wait()


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Supervised]:
    for name in _PAUSES:
        monkeypatch.setattr(f"lsx.serving.supervisor.{name}", 0.01)
    made = _Supervised(ServeSettings(data=tmp_path, grace_seconds=10))
    yield made
    for child in made.supervisor._children():
        with child:
            child.kill()


def _runs(number: int) -> bool:
    """Whether a process runs; one that nobody has waited for has no command any more."""
    try:
        return bool(Path(f"/proc/{number}/cmdline").read_bytes())
    except OSError:
        return False


def test_what_cannot_start_the_first_time_ends_all(supervised: _Supervised) -> None:
    (supervised.data / "code").write_text("3")
    with pytest.raises(EngineError, match="cpu:0 cannot start"):
        supervised.turned_until(lambda: False)


def test_what_cannot_start_later_is_tried_again(supervised: _Supervised) -> None:
    """A bundle that is away for a moment, or memory that is full, must not end the others."""
    code, lives = supervised.data / "code", supervised.data / "lives"
    supervised.turned_until(lives.exists)
    code.write_text("3")
    lives.unlink()
    supervised.kill()
    supervised.turned_until(lambda: len(supervised.starts()) >= 3)
    code.unlink()
    supervised.turned_until(lives.exists)
    assert {name for name, *_ in supervised.starts()} == {"cpu:0"}


def test_a_new_worker_that_is_killed_is_started_again_in_place_of_the_old(supervised: _Supervised) -> None:
    supervised.turned_until(lambda: len(supervised.starts()) == 1)
    supervised.supervisor._signals.append(signal.SIGHUP)
    supervised.turned_until(lambda: len(supervised.starts()) == 2)
    supervised.kill()
    supervised.turned_until(lambda: len(supervised.starts()) == 3)
    old, *new = supervised.starts()
    assert [(name, replaced) for name, _, replaced in new] == [("cpu:0+", old[1])] * 2
    assert old[2] == "-"


def test_sighup_does_not_end_what_drains(supervised: _Supervised) -> None:
    supervised.turned_until(lambda: len(supervised.starts()) == 1)
    supervised.supervisor._signals.append(signal.SIGHUP)
    supervised.supervisor._end()
    assert (supervised.data / "drained").exists()


def test_a_second_signal_ends_what_drains(supervised: _Supervised) -> None:
    supervised.turned_until(lambda: len(supervised.starts()) == 1)
    supervised.supervisor._signals.append(signal.SIGTERM)
    supervised.supervisor._end()
    assert not (supervised.data / "drained").exists()


def test_a_killed_supervisors_processes_end_and_the_next_one_waits_for_them(settings: ServeSettings) -> None:
    """Its jobs go on: none is lost, none is done twice, and no two workers have one name."""
    settings = settings.model_copy(update={"port": 0, "workers": "cpu:1", "poll_seconds": 0.05, "machine": "here"})
    hold = settings.data / "hold"
    with fake_server(settings) as served:
        client = Client(served, settings.data / "media")
        hold.touch()
        job = client.submit(10)["id"]
        client.started(job)
        client.close()
        [worker] = served.processes(WORKER)
        served.process.kill()
        served.process.wait()
    with fake_server(settings) as again:
        until(
            lambda: any(
                line.get("process") == "cpu:0" and "waits for the process" in str(line.get("event"))
                for line in again.lines()
            )
        )
        assert _runs(worker)
        hold.unlink()
        done = again.ended(job)
        assert (done["status"], done["attempts"]) == ("COMPLETED", 1), done
        until(lambda: not _runs(worker))
        until(lambda: again.processes(WORKER))
