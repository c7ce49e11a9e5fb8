"""Many runs with engines that are loaded once: each result whole, one failure no end, a kill made good by resuming."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lsx.core.atomic_files import write_whole
from lsx.core.cancel import CancelToken
from lsx.errors import Cancelled, DeviceLost, EngineClosed, LsxError, OutputError
from lsx.runtime.batch_jobs import Job
from lsx.runtime.lipsync import LipSync
from lsx.runtime.run_report import RunReport

__all__ = ["BatchResult", "JobResult", "report_path", "run_batch", "workers_for"]

State = Literal["done", "kept", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What became of a job."""

    line: int
    """Line of the jobs' file."""
    name: str
    """The result's file name."""
    state: State
    """`kept` was done by an earlier batch."""
    frames: int = 0
    seconds: float = 0.0
    error: str | None = None
    """One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What became of a batch."""

    jobs: tuple[JobResult, ...]
    """Jobs in the order of the file."""
    seconds: float
    """Wall-clock time, without loading engines."""

    def count(self, state: State) -> int:
        """Jobs of that state."""
        return sum(job.state == state for job in self.jobs)


def report_path(folder: Path, job: Job) -> Path:
    """The file of a job's report, which is written beside its result, after it."""
    return folder / f"{job.name}.json"


def workers_for(lipsync: LipSync, asked: int | None) -> int:
    """Runs side by side: as many as asked for; else one where the CPU computes, and two where a GPU does.

    With two, one run's frames are decoded and pasted while the other's are on the GPU.
    """
    if asked is not None:
        return asked
    return 1 if lipsync.backend in ("onnxruntime", "torch") else 2


def run_batch(
    lipsync: LipSync,
    jobs: Sequence[Job],
    folder: Path,
    *,
    workers: int = 1,
    resume: bool = False,
    done: Callable[[JobResult], None] = lambda _: None,
    cancel: CancelToken | None = None,
) -> BatchResult:
    """Run `jobs` into `folder`, those of one schedule and video after one another.

    resume : leave out the jobs whose result and report are there and whose options and inputs are the same; done :
    called from the calling thread for each job. Raises OutputError where the folder cannot be written, Cancelled.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}") from error
    started = time.perf_counter()
    token = cancel or CancelToken()
    results: dict[int, JobResult] = {}
    waiting = []
    for job in sorted(jobs, key=lambda job: job.order):
        kept = _kept(folder, job) if resume else None
        if kept is None:
            waiting.append(job)
        else:
            results[job.line] = kept
            done(kept)
    with ThreadPoolExecutor(workers, "lsx-batch") as pool:
        futures = [pool.submit(_run, lipsync, job, folder, token) for job in waiting]
        try:
            for future in as_completed(futures):
                result = future.result()
                results[result.line] = result
                done(result)
        except BaseException:
            token.cancel()
            pool.shutdown(cancel_futures=True)
            raise
    ordered = tuple(results[job.line] for job in jobs)
    return BatchResult(jobs=ordered, seconds=time.perf_counter() - started)


def _run(lipsync: LipSync, job: Job, folder: Path, cancel: CancelToken) -> JobResult:
    report_path(folder, job).unlink(missing_ok=True)  # it would speak of another result
    started = time.perf_counter()
    digest = job.digest
    try:
        report = lipsync.run(
            job.video,
            job.audio,
            folder / job.name,
            job.sampling,
            footage=job.footage,
            encode=job.encode,
            cancel=cancel,
        )
        result = JobResult(
            line=job.line, name=job.name, state="done", frames=report.frames, seconds=time.perf_counter() - started
        )
        _write(report_path(folder, job), digest, result, report)
    except (Cancelled, EngineClosed, DeviceLost):
        raise  # no other job could go on
    except Exception as error:  # whatever a library raises over one job's files is that job's own
        seconds = time.perf_counter() - started
        said = str(error) if isinstance(error, LsxError) else f"{type(error).__name__}: {error}"
        result = JobResult(line=job.line, name=job.name, state="failed", seconds=seconds, error=said)
        _write(report_path(folder, job), digest, result, None)
    return result


def _write(path: Path, digest: str, result: JobResult, report: RunReport | None) -> None:
    content = {
        "job": digest,
        "state": result.state,
        "error": result.error,
        "report": None if report is None else json.loads(report.as_json()),
    }
    try:
        write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _kept(folder: Path, job: Job) -> JobResult | None:
    """What an earlier batch made of this very job, where it is whole."""
    try:
        content = json.loads(report_path(folder, job).read_text(encoding="utf-8"))
        same = content["job"] == job.digest and content["state"] == "done" and (folder / job.name).is_file()
        frames = int(content["report"]["frames"]) if same else 0
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return JobResult(line=job.line, name=job.name, state="kept", frames=frames) if same else None
