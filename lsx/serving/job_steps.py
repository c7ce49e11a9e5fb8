"""What a worker does for a job: probe, render, publish. DBOS keeps what is done, so that a killed job goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS

from lsx.core.atomic_files import sha256_of
from lsx.core.cancel import CancelToken
from lsx.errors import DeviceLost, EngineClosed, LsxError, UsageError
from lsx.runtime.lipsync import LipSync
from lsx.runtime.run_files import open_inputs
from lsx.runtime.run_report import Progress, RunReport
from lsx.serving.avatar_steps import AvatarSteps
from lsx.serving.database import JOBS, finish, now_ms, persistently
from lsx.serving.executor import as_step
from lsx.serving.job_book import WORKFLOW
from lsx.serving.job_options import RunOptions, run_options
from lsx.serving.kept_sections import KeptSections, sections_key
from lsx.serving.logs import logger
from lsx.serving.settings import ServeSettings
from lsx.serving.statuses import Rejected, rejection
from lsx.serving.store import Store

__all__ = ["JobSteps"]


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """A job's files on this machine, and its options."""

    video: Path
    """Or an avatar's folder."""
    audio: Path | None
    options: RunOptions


class JobSteps:
    """The steps of jobs on one LipSync. DBOS calls them on threads of its own, one job at a time."""

    def __init__(
        self, settings: ServeSettings, engine: sa.Engine, store: Store, lipsync: LipSync, scratch: Path
    ) -> None:
        """scratch : a folder of this process alone."""
        self._settings, self._engine, self._store, self._lipsync = settings, engine, store, lipsync
        self._scratch = scratch
        self.avatars = AvatarSteps(settings, engine, store, lipsync, scratch)
        self.totals = {"jobs": 0, "frames": 0, "render_seconds": 0.0}
        """What this process has made since it began."""

    def register(self) -> None:
        """Declare the workflows and their steps to DBOS."""
        self.avatars.register()
        probe = as_step("probe", self._probe)
        render = as_step("render", self._render)
        publish = as_step("publish", self._publish)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=self._settings.job_attempts)
        def lipsync(job: str) -> dict[str, Any]:
            self._begin(job)
            try:
                probe(job)
                return publish(job, render(job))
            except Exception:
                self._end(job)
                raise

    def _begin(self, job: str) -> None:
        """Count the start; it is no step, so that every start is counted."""

        def count() -> None:
            with self._engine.begin() as connection:
                first = sa.func.coalesce(JOBS.c.started_ms, now_ms(connection))
                values = {"attempts": JOBS.c.attempts + 1, "started_ms": first, "progress": {"stage": "probe"}}
                connection.execute(JOBS.update().where(JOBS.c.id == job).values(**values))

        persistently(count)
        logger(job=job).info("job begins")

    def _end(self, job: str) -> None:
        """Free the job's place in the queue."""

        def free() -> None:
            with self._engine.begin() as connection:
                finish(connection, job, self._settings.keep_hours)

        persistently(free)
        self._store.remove(sections_key(job))

    def _request(self, job: str) -> Mapping[str, Any]:
        def read() -> Any:
            with self._engine.connect() as connection:
                return connection.execute(sa.select(JOBS.c.request).where(JOBS.c.id == job)).scalar()

        request = persistently(read)
        if request is None:
            raise Rejected("removed: the job was removed")
        found: Mapping[str, Any] = request
        return found

    @contextmanager
    def _folder(self, job: str) -> Iterator[Path]:
        """A folder of this job's own, which is gone in the end."""
        folder = self._scratch / job
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _inputs(self, request: Mapping[str, Any], folder: Path) -> _Inputs:
        """The job's inputs, fetched to this machine; an avatar is prepared where it is not, or for another bundle.

        Raises Rejected where one has been removed.
        """
        options = dict(request.get("options", {}))
        wanted = {given["type"]: given["asset_id"] for given in request["input"] if given.get("asset_id")}
        sounds = {segment["audio"]: segment["audio"] for segment in options.get("segments") or ()}
        try:
            paths = {number: self._store.fetch(f"uploads/{number}", folder) for number in {*wanted.values(), *sounds}}
            for path in paths.values():
                path.stat()
        except FileNotFoundError as error:
            raise Rejected("upload_expired: an upload of this job was removed; upload it again") from error
        audio = wanted.get("audio")
        avatar = next((given["avatar_id"] for given in request["input"] if given.get("avatar_id")), None)
        job = folder.name
        video = paths[wanted["video"]] if avatar is None else self.avatars.folder(avatar, partial(self._mark, job))
        return _Inputs(
            video, None if audio is None else paths[audio], run_options(options, paths, self._lipsync.bundle.sampling)
        )

    def _probe(self, job: str) -> None:
        """Refuse, before any work, what cannot be made. Raises Rejected."""
        with self._folder(job) as folder:
            try:
                inputs = self._inputs(self._request(job), folder)
                self._check_limits(inputs, folder)
            except LsxError as error:
                raise rejection(error, self._without_paths(str(error), folder)) from error

    def _check_limits(self, inputs: _Inputs, folder: Path) -> None:
        """Raise UsageError for more steps or seconds than are allowed, and whatever a run raises before it begins."""
        settings, options = self._settings, inputs.options
        self._lipsync.bundle.check_sampling(options.sampling)
        if options.sampling.steps > settings.max_steps:
            raise UsageError(f"steps is {options.sampling.steps}; this server makes at most {settings.max_steps}")
        _, _, plan, _, _ = open_inputs(
            inputs.video,
            inputs.audio,
            folder / "out.mp4",
            bundle=self._lipsync.bundle,
            compare=None,
            encode=options.encode,
            footage=options.footage,
        )
        seconds = float(plan.timeline.seconds)
        if seconds > settings.max_seconds:
            raise UsageError(f"the result lasts {seconds:.0f} s; this server makes at most {settings.max_seconds:.0f}")

    def _render(self, job: str) -> dict[str, Any]:
        """Make the result and store it under its hash. What is returned names it."""
        with self._folder(job) as folder:
            inputs = self._inputs(self._request(job), folder)
            output = folder / "out.mp4"
            with KeptSections(self._store, job, folder) as sections:
                report = self._run(job, inputs, output, sections)
            self._mark(job, {"stage": "publish", "frames": report.frames, "total": report.frames})
            digest, size = sha256_of(output), output.stat().st_size
            key = f"outputs/{job}/{digest}.mp4"
            self._store.put(key, output)
        return {
            "key": key,
            "sha256": digest,
            "size": size,
            "frames": report.frames,
            "seconds": report.frames / report.fps,
            "faceless": [list(span) for span in report.faceless_spans],
            "notes": list(report.notes),
            "run_seconds": report.seconds,
            "resumed_frames": report.resumed_frames,
        }

    def _run(self, job: str, inputs: _Inputs, output: Path, sections: KeptSections) -> RunReport:
        """The run, on a thread of its own, while this one marks progress: a mark raises where the job is not ours."""
        token, latest = CancelToken(), [Progress(frames=0, total=0, fps=0.0)]
        chosen = inputs.options

        def told(progress: Progress) -> None:
            latest[0] = progress

        with ThreadPoolExecutor(1, "lsx-run") as pool:
            future: Future[RunReport] = pool.submit(
                self._lipsync.run,
                inputs.video,
                inputs.audio,
                output,
                chosen.sampling,
                footage=chosen.footage,
                encode=chosen.encode,
                resume_dir=sections.folder,
                resume_every=self._settings.resume_every,
                progress=told,
                cancel=token,
            )
            try:
                while not wait([future], self._settings.progress_seconds).done:
                    self._mark(job, _progress(latest[0]))
                    sections.push()
            except BaseException:
                token.cancel()
                raise
            return self._made(job, future.result)

    def _made(self, job: str, result: Callable[[], RunReport]) -> RunReport:
        try:
            return result()
        except (DeviceLost, EngineClosed) as error:  # no job can go on here; the next process has this one
            logger(job=job).error("engines are lost; the worker ends", error=str(error))
            os._exit(1)

    def _mark(self, job: str, progress: dict[str, Any]) -> None:
        """Say how far the job is. DBOS raises, over `Exception`, where it was cancelled, timed out or taken over."""
        DBOS.set_event("mark", int(time.time()))
        with suppress(sa.exc.OperationalError), self._engine.begin() as connection:  # the next mark says it
            connection.execute(JOBS.update().where(JOBS.c.id == job).values(progress=progress))

    def _publish(self, job: str, made: dict[str, Any]) -> dict[str, Any]:
        """Count the job as ended. Idempotent."""
        self._end(job)
        frames = made["frames"] - made.get("resumed_frames", 0)  # which an older worker did not say
        made_now = {"jobs": 1, "frames": frames, "render_seconds": made["run_seconds"]}
        self.totals = {name: self.totals[name] + value for name, value in made_now.items()}
        logger(job=job).info("job is done", frames=frames, seconds=made["run_seconds"])
        return made

    def _without_paths(self, text: str, folder: Path) -> str:
        """A message as a user of the API may read it: uploads by their ids."""
        return self._store.without_paths(text.replace(f"{folder}/uploads-", "").replace(f"{folder}/", ""))


def _progress(latest: Progress) -> dict[str, Any]:
    looking = latest.to_look > 0 and latest.frames == 0 and latest.looked < latest.to_look
    return {
        "stage": "look" if looking else "denoise",
        "frames": latest.frames,
        "total": latest.total,
        "fps": round(latest.fps, 3),
        "eta_seconds": None if latest.seconds_left is None else round(latest.seconds_left, 1),
        "looked": latest.looked,
        "to_look": latest.to_look,
    }
