"""A build on its thread: its failure reaches the caller, an interruption reaches it and is waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from lsx.engines.tensorrt.build_job import BuildJob
from lsx.errors import BuildError


class Job(BuildJob):
    """A build whose work is the test's."""

    def __init__(self, work: Any) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.work = work

    def _build(self, path: Path) -> None:
        self.work(self, path)


def test_a_build_reports_its_share_and_memory(tmp_path: Path) -> None:
    told = threading.Event()

    def build(job: Job, path: Path) -> None:
        job._advance(0.5)
        assert told.wait(30)
        path.write_bytes(b"plan")

    shares: list[float] = []

    def report(share: float) -> None:
        shares.append(share)
        told.set()

    assert Job(build).run(tmp_path / "plan", report) > 2**20
    assert shares[0] in (0.0, 0.5)
    assert (tmp_path / "plan").read_bytes() == b"plan"


def test_a_failure_reaches_the_caller(tmp_path: Path) -> None:
    def fail(_job: Job, _path: Path) -> None:
        raise BuildError("no tactic")

    with pytest.raises(BuildError, match="no tactic"):
        Job(fail).run(tmp_path / "plan", lambda _: None)


def test_an_interruption_ends_the_build_and_waits_for_it(tmp_path: Path) -> None:
    ended = threading.Event()

    def build(job: Job, _path: Path) -> None:
        assert job._cancelled.wait(30)
        ended.set()
        raise KeyboardInterrupt

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Job(build).run(tmp_path / "plan", interrupted)
    assert ended.is_set()
