"""Admission of runs by memory: what fits begins, what does not waits, a large one is not passed by, nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lsx.core.cancel import CancelToken
from lsx.core.host_memory import available_bytes
from lsx.errors import Cancelled, UsageError
from lsx.runtime.admission import Admission


class _Run:
    """A run that was asked for on a thread, and lasts until `end`."""

    def __init__(self, admission: Admission, size: int, priority: int = 5, cancel: CancelToken | None = None) -> None:
        self.began, self.error = threading.Event(), threading.Event()
        self._over = threading.Event()
        self._asked = (admission, size, priority, cancel)
        before = len(admission._waiting) + len(admission._taken)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while not self.error.is_set() and len(admission._waiting) + len(admission._taken) <= before:
            self._over.wait(0.001)

    def _run(self) -> None:
        admission, size, priority, cancel = self._asked

        def check() -> None:
            if cancel is not None and cancel.cancelled:
                raise Cancelled("given up")

        try:
            with admission.admitted(size, priority, cancel, check):
                self.began.set()
                self._over.wait(20)
        except Cancelled:
            self.error.set()

    def end(self) -> None:
        self._over.set()
        self._thread.join(20)


@contextmanager
def _running(*runs: _Run) -> Iterator[None]:
    for run in runs:
        assert run.began.wait(10)
    yield


def test_what_fits_begins_and_the_rest_waits_for_room() -> None:
    admission = Admission(100)
    first, second, third = (_Run(admission, size) for size in (60, 40, 1))
    with _running(first, second):
        assert not third.began.is_set()
        assert admission.taken == 100
    second.end()
    with _running(third):
        assert admission.taken == 61
    first.end()
    third.end()
    assert admission.taken == 0


def test_a_run_that_is_alone_begins_whatever_it_takes() -> None:
    admission = Admission(100)
    large = _Run(admission, 1000)
    with _running(large):
        small = _Run(admission, 1)
        assert not small.began.is_set()
    large.end()
    with _running(small):
        pass
    small.end()


def test_a_large_run_is_not_passed_by_small_ones_but_by_a_smaller_priority() -> None:
    admission = Admission(100)
    first = _Run(admission, 60)
    with _running(first):
        large, small, urgent = _Run(admission, 90), _Run(admission, 10), _Run(admission, 40, priority=1)
        with _running(urgent):
            assert not large.began.is_set()
            assert not small.began.is_set()
    first.end()
    assert not large.began.is_set()
    urgent.end()
    with _running(large, small):
        pass
    large.end()
    small.end()


def test_who_is_cancelled_while_it_waits_lets_the_next_one_look() -> None:
    admission, cancel = Admission(100), CancelToken()
    first = _Run(admission, 60)
    with _running(first):
        waiting, small = _Run(admission, 90, cancel=cancel), _Run(admission, 10)
        cancel.cancel()
        assert waiting.error.wait(10)
        with _running(small):
            pass
    first.end()
    small.end()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_no_limit(wrong: object) -> None:
    with pytest.raises(UsageError, match="run_memory"):
        Admission(wrong)  # type: ignore[arg-type]


def test_the_memory_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000 kB\nMemAvailable:    4000 kB\n")
    assert available_bytes(tmp_path) == 4000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("3000000\n")
    (group / "memory.current").write_text("1000000\n")
    assert available_bytes(tmp_path) == 2_000_000
    (group / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) == 4000 * 1024
    assert available_bytes(tmp_path / "nowhere") is None
