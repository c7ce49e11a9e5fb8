"""scripts/scale_simulation.py, small: every job is made once, and the figures are those that docs/scaling.md has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("more", [[], ["--real"]], ids=["executors", "workers"])
def test_every_job_is_made_once(tmp_path: Path, more: list[str]) -> None:
    workers = 2 if more else 4
    sizes = {"workers": workers, "jobs": 12, "seconds": 0.2, "poll": 0.2, "processes": 2, "idle": 2.5, "limit": 300}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "scripts.scale_simulation", str(tmp_path), *flags, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert (found["ended"], found["attempts"], found["posted_again"]) == (12, 12, 0)
    assert found["idle"]["transactions_a_second"] > 0
    assert 0 <= found["enqueue_to_start_p50"] <= found["enqueue_to_start_p99"]
    parts = {"clients", "http", "keeper", "postgres", "workers" if more else "executors"}
    assert found["core_seconds"].keys() == parts
