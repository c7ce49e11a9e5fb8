"""The stages, in order. Each is a process of its own: what one breaks does not reach the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["STAGES", "Outcome", "Stage", "run_stages"]

State = Literal["ok", "failed", "timed out", "skipped"]


@dataclass(frozen=True)
class Stage:
    """One stage."""

    number: int
    name: str
    title: str
    minutes: float
    """Its limit."""


STAGES = (
    Stage(1, "probe", "versions, and every CUDA and TensorRT call that lsx makes", 10),
    Stage(2, "device", "the CUDA device alone: copies, waits, out of memory, capture", 10),
    Stage(3, "small", "small bundle on the torch backend: schedules, batches, streams; tests/gpu", 40),
    Stage(4, "sanitizer", "compute-sanitizer over stage 2 and a chunk", 30),
    Stage(5, "full", "full-width random U-Net and VAE: eager, captured, kernels", 60),
    Stage(6, "plans", "TensorRT-RTX and TensorRT plans for this GPU", 60),
    Stage(7, "bench", "lsx verify and lsx bench of all of them, also of several clients and live", 90),
    Stage(8, "serve", "a server with a worker on the GPU: a job, live sessions, Triton", 30),
)


@dataclass(frozen=True)
class Outcome:
    """How a stage went: a line of stages.jsonl."""

    stage: int
    name: str
    title: str
    state: State
    seconds: float
    reason: str
    log: str
    checks: list[dict[str, Any]]


def run_stages(
    chosen: Sequence[Stage],
    folder: Path,
    options: Sequence[str] = (),
    *,
    command: Callable[[Stage], list[str]] | None = None,
) -> Iterator[Outcome]:
    """Run the stages, yielding each one's outcome. A failed first stage ends them, as nothing else would run.

    options : passed on to each stage's process; command : what is started for a stage, for tests.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    lines = folder / "stages.jsonl"
    lines.write_text("")
    for stage in chosen:
        started = command(stage) if command else [sys.executable, "-m", "scripts.gpu.stage", stage.name, str(folder)]
        outcome = _run(stage, [*started, *options], folder)
        with lines.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        yield outcome
        if stage.number == 1 and outcome.state != "ok" and not _has_gpu(outcome):
            return


def _has_gpu(outcome: Outcome) -> bool:
    return any(row["check"] == "GPU" and row["state"] == "ok" for row in outcome.checks)


def _run(stage: Stage, command: list[str], folder: Path) -> Outcome:
    log, figures = folder / "logs" / f"{stage.number}-{stage.name}.log", folder / f"{stage.number}-{stage.name}.json"
    figures.unlink(missing_ok=True)
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  (this very Python)
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(timeout=60 * stage.minutes)
        except subprocess.TimeoutExpired:
            code = None
        except BaseException:
            _end(process)
            raise
        if code is None:
            _end(process)
    checks = json.loads(figures.read_text()) if figures.is_file() else []
    state, reason = _judged(code, checks, stage)
    if state == "failed" and not reason:
        reason = _last_line(log)
    seconds = round(time.perf_counter() - start, 1)
    return Outcome(stage.number, stage.name, stage.title, state, seconds, reason, str(log.relative_to(folder)), checks)


def _judged(code: int | None, checks: list[dict[str, Any]], stage: Stage) -> tuple[State, str]:
    if code is None:
        return "timed out", f"not done after {stage.minutes:g} min; {len(checks)} checks were"
    if code == 0 and checks and all(row["state"] == "skipped" for row in checks):
        return "skipped", "; ".join(dict.fromkeys(str(row["said"]) for row in checks))
    if code == 0:
        return "ok", ""
    failed = [f"{row['check']}: {row['said']}" for row in checks if row["state"] == "failed"]
    ended = "" if code > 0 else f"ended by signal {-code}"
    return "failed", "; ".join([*failed, ended] if ended else failed)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word of it"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a stage and all that it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
