"""`lsx batch`: many runs with engines that are loaded once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.cli.console import counted, emit, out, warn
from lsx.cli.options import BackendName, BundlePath, CheckpointDir, Provider, Threads
from lsx.cli.progress import task
from lsx.cli.report_files import make_folder
from lsx.core.atomic_files import write_whole
from lsx.engines.loading import AUTO, best_backend
from lsx.errors import BatchFailed, OutputError, UsageError

if TYPE_CHECKING:
    from lsx.runtime.batch import BatchResult, JobResult

__all__ = ["batch"]

_SUMMARY = "batch.json"


def batch(
    bundle: BundlePath,
    jobs: Annotated[Path, typer.Argument(help="Jobs: .csv with a header, or .jsonl; see docs/batch.md.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results and their reports.")],
    workers: Annotated[str, typer.Option(help="Runs side by side: a number, or auto.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Leave out the jobs that are done already.")] = False,
    backend: BackendName = "auto",
    provider: Provider = "cpu",
    threads: Threads = None,
    checkpoint_dir: CheckpointDir = None,
    require_verified: Annotated[
        bool, typer.Option("--require-verified", help="Refuse settings that no record of lsx verify covers.")
    ] = False,
) -> None:
    """Lip-sync every job of a file; one that fails does not stop the others. Ends with 1 if any failed."""
    if workers != AUTO and not (workers.isdigit() and int(workers) > 0):
        raise UsageError(f"--workers is {workers}; give a whole number from 1 on, or auto")
    from lsx.engines.registry import EngineOptions
    from lsx.runtime.batch_jobs import read_jobs

    engine = EngineOptions(provider=provider, threads=threads, checkpoint_dir=checkpoint_dir)
    opened = Bundle.open(bundle)
    given = read_jobs(jobs, opened.sampling)
    backend = best_backend(opened, backend, engine)
    make_folder(output)
    from lsx.runtime.batch import run_batch, workers_for
    from lsx.runtime.lipsync import LipSync

    finished = 0
    with task("batch") as work:
        work.update("loading engines", 0, len(given))

        def done(result: JobResult) -> None:
            nonlocal finished
            finished += 1
            if result.error is not None:
                warn(f"line {result.line}: {result.error}")
            work.update("jobs", finished, len(given), f"{finished} of {len(given)}: {result.name} {result.state}")

        with LipSync.open(opened, backend, engine, require_verified=require_verified) as lipsync:
            side_by_side = workers_for(lipsync, None if workers == AUTO else int(workers))
            result = run_batch(lipsync, given, output, workers=side_by_side, resume=resume, done=done)
    _write_summary(output / _SUMMARY, result)
    _show(result, output)


def _write_summary(path: Path, result: BatchResult) -> None:
    from json import dumps

    try:
        write_whole(path, (dumps({"schema_version": 1, **asdict(result)}, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _show(result: BatchResult, output: Path) -> None:
    """A line a job, and the sum. Raises BatchFailed."""
    for job in result.jobs:
        made = job.error or (counted(job.frames, "frame") + (f" in {job.seconds:.1f} s" if job.state == "done" else ""))
        out.print(f"  line {job.line}: {job.state}, {job.name}: {made}", markup=False)
    counts = {state: result.count(state) for state in ("done", "kept", "failed")}
    frames = sum(job.frames for job in result.jobs if job.state == "done")
    summed = ", ".join(f"{count} {state}" for state, count in counts.items())
    total = f"{counted(len(result.jobs), 'job')}: {summed}; {counted(frames, 'frame')} in {result.seconds:.1f} s"
    out.print(f"{total}. Results and reports: {output}", markup=False)
    emit(**asdict(result), output=str(output))
    if counts["failed"]:
        raise BatchFailed(
            f"{counts['failed']} of {counted(len(result.jobs), 'job')} failed; {output / _SUMMARY} says why"
        )
