"""What a worker does for an avatar: prepare it with its own bundle, from the upload or from the kept source."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa
from dbos import DBOS

from lsx.core.cancel import CancelToken
from lsx.core.footage import FootageOptions
from lsx.engines.registry import EngineOptions
from lsx.errors import (
    BundleError,
    Cancelled,
    DeviceLost,
    EngineClosed,
    FaceNotFound,
    IntegrityError,
    LsxError,
    MediaError,
    UsageError,
)
from lsx.faces.avatar import Avatar
from lsx.runtime.avatar_job import prepare_avatar
from lsx.runtime.avatar_video import AvatarVideo
from lsx.runtime.lipsync import LipSync
from lsx.runtime.timeline import Timeline
from lsx.serving.avatar_book import AVATAR_WORKFLOW, video_key
from lsx.serving.avatar_files import AvatarFiles, encoder_digest
from lsx.serving.database import AVATARS, PREPARATIONS, now_ms, persistently
from lsx.serving.executor import as_step
from lsx.serving.ids import new_id
from lsx.serving.job_checks import prepare_footage
from lsx.serving.logs import logger
from lsx.serving.settings import ServeSettings
from lsx.serving.statuses import Rejected, rejection
from lsx.serving.store import Store

__all__ = ["AvatarSteps", "Mark"]

Mark = Callable[[dict[str, Any]], None]
"""Says how far a job or an avatar is; raises where it was cancelled or is another worker's."""

_MARK_SECONDS = 0.5
_OF_THE_INPUT = (UsageError, MediaError, FaceNotFound, BundleError)


class AvatarSteps:
    """Prepares avatars with one LipSync's bundle, one at a time: in workflows of their own, and for jobs."""

    def __init__(
        self, settings: ServeSettings, engine: sa.Engine, store: Store, lipsync: LipSync, scratch: Path
    ) -> None:
        """scratch : a folder of this process alone."""
        self._settings, self._engine, self._store, self._lipsync = settings, engine, store, lipsync
        self._scratch = scratch
        self._files = AvatarFiles(store, settings.data / "avatars" / scratch.name, settings.avatar_cache_bytes)

    def register(self) -> None:
        """Declare the workflow and its step to DBOS."""
        prepare = as_step("prepare", self._prepare)

        @DBOS.workflow(name=AVATAR_WORKFLOW, max_recovery_attempts=self._settings.job_attempts)
        def avatar(number: str) -> str:
            self._begin(number)
            try:
                made = prepare(number)
            except Exception:
                self._end(number)
                raise
            self._end(number)
            return made

    def folder(self, number: str, mark: Mark) -> Path:
        """A folder with the avatar, prepared for this bundle first where it is not. Raises Rejected, LsxError."""
        row = self._row(number)
        if row.finished_ms is not None and self._kept(number) is None:
            raise Rejected(f"avatar_failed: the avatar {number} could not be prepared")
        return self._fetched(number, self._prepared(row, mark))

    def ready_folder(self, number: str) -> Path:
        """A folder with the avatar, where it is prepared for this bundle. Raises Rejected."""
        row = self._row(number)
        preparation = self._kept(row.id, encoder_digest(self._lipsync.bundle))
        if preparation is None:
            raise Rejected(f"avatar_not_ready: the avatar {number} is not prepared for this bundle; a job prepares it")
        return self._fetched(number, preparation)

    def _fetched(self, number: str, preparation: Any) -> Path:
        """The folder of a preparation on this machine. Raises Rejected."""
        try:
            return self._files.folder(preparation.prefix)
        except IntegrityError as error:
            self._row(number)
            raise Rejected(f"avatar_damaged: {error}") from error

    def _prepare(self, number: str) -> str:
        """Prepare an avatar; where its preparation is. Idempotent."""
        began = time.monotonic()
        preparation = self._prepared(self._row(number), lambda progress: self._mark(number, progress))
        frames, took = preparation.facts["frames"], time.monotonic() - began
        logger(avatar=number).info("avatar is ready", frames=frames, seconds=took)
        return str(preparation.prefix)

    def _begin(self, number: str) -> None:
        def note() -> None:
            with self._engine.begin() as connection:
                first = sa.func.coalesce(AVATARS.c.started_ms, now_ms(connection))
                values = {"started_ms": first, "progress": {"stage": "prepare"}}
                connection.execute(AVATARS.update().where(AVATARS.c.id == number).values(**values))

        persistently(note)
        logger(avatar=number).info("avatar begins")

    def _end(self, number: str) -> None:
        """Free the avatar's place in the queue."""

        def free() -> None:
            with self._engine.begin() as connection:
                waits = AVATARS.update().where(AVATARS.c.id == number, AVATARS.c.finished_ms.is_(None))
                connection.execute(waits.values(finished_ms=now_ms(connection)))

        persistently(free)

    def _mark(self, number: str, progress: dict[str, Any]) -> None:
        DBOS.set_event("mark", int(time.time()))
        with suppress(sa.exc.OperationalError), self._engine.begin() as connection:  # the next mark says it
            connection.execute(AVATARS.update().where(AVATARS.c.id == number).values(progress=progress))

    def _row(self, number: str) -> Any:
        """Raises Rejected for one that was removed."""

        def read() -> Any:
            with self._engine.connect() as connection:
                return connection.execute(sa.select(AVATARS).where(AVATARS.c.id == number)).first()

        row = persistently(read)
        if row is None:
            raise Rejected(f"avatar_deleted: the avatar {number} was removed")
        return row

    def _kept(self, number: str, encoder: str | None = None) -> Any:
        """The avatar's latest preparation, or the one for an encoder; None where there is none."""
        query = sa.select(PREPARATIONS).where(PREPARATIONS.c.avatar == number)
        if encoder is not None:
            query = query.where(PREPARATIONS.c.encoder == encoder)

        def read() -> Any:
            with self._engine.begin() as connection:
                found = connection.execute(query.order_by(PREPARATIONS.c.created_ms.desc()).limit(1)).first()
                if found is not None:
                    used = PREPARATIONS.update().where(PREPARATIONS.c.prefix == found.prefix)
                    connection.execute(used.values(used_ms=now_ms(connection)))
                return found

        return persistently(read)

    def _prepared(self, row: Any, mark: Mark) -> Any:
        """The preparation for this worker's bundle, made where there is none. Raises Rejected, LsxError."""
        encoder = encoder_digest(self._lipsync.bundle)
        found = self._kept(row.id, encoder)
        if found is not None:
            return found
        prefix = f"avatars/{row.id}/{encoder}/{new_id('prep')}"
        folder = self._scratch / row.id
        folder.mkdir(parents=True, exist_ok=True)
        try:
            avatar = self._made(row, folder, mark)
            facts = _facts(avatar)
            mark({"stage": "publish", "frames": facts["frames"], "total": facts["frames"]})
            self._files.put(prefix, avatar.path)
        except (DeviceLost, EngineClosed) as error:
            self._give_up(row.id, error)
        except _OF_THE_INPUT as error:
            raise rejection(error, self._without_paths(str(error), folder)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._entered(row.id, encoder, prefix, facts)

    def _give_up(self, number: str, error: LsxError) -> NoReturn:
        """End the process: nothing can be prepared here, and the next process has this avatar."""
        logger(avatar=number).error("engines are lost; the worker ends", error=str(error))
        os._exit(1)

    def _made(self, row: Any, folder: Path, mark: Mark) -> Avatar:
        """The avatar, below `folder`: prepared on a thread of its own, while this one marks progress."""
        source, footage = self._source(row, folder), prepare_footage(row.request)
        token, latest = CancelToken(), [(0, 0)]

        def told(done: int, frames: int) -> None:
            if token.cancelled:
                raise Cancelled("the preparation was cancelled")
            latest[0] = (done, frames)

        with ThreadPoolExecutor(1, "lsx-prepare") as pool:
            future = pool.submit(
                prepare_avatar,
                self._lipsync.bundle,
                source,
                folder / "avatar",
                backend=self._lipsync.backend,
                engine=EngineOptions(provider=self._settings.provider, threads=self._settings.threads),
                start=footage.start,
                end=footage.end,
                fps=footage.fps,
                speaker=footage.speaker,
                progress=told,
            )
            try:
                while not wait([future], _MARK_SECONDS).done:
                    mark({"stage": "prepare", "frames": latest[0][0], "total": latest[0][1]})
            except BaseException:
                token.cancel()
                raise
            return future.result()

    def _source(self, row: Any, folder: Path) -> Path:
        """The video: what another preparation kept, or the upload. Raises Rejected where it was removed."""
        try:
            path = self._store.fetch(video_key(row.request["asset_id"], self._kept(row.id)), folder)
            path.stat()
        except FileNotFoundError as error:
            self._row(row.id)
            raise Rejected("upload_expired: the avatar's video was removed; upload it again") from error
        return path

    def _entered(self, number: str, encoder: str, prefix: str, facts: dict[str, Any]) -> Any:
        """The preparation that counts: this one, or one that another worker entered first, and then this one goes."""

        def enter() -> None:
            with suppress(sa.exc.IntegrityError), self._engine.begin() as connection:
                now = now_ms(connection)
                values = {"avatar": number, "encoder": encoder, "prefix": prefix, "facts": facts}
                connection.execute(PREPARATIONS.insert().values(**values, created_ms=now, used_ms=now))

        persistently(enter)
        found = self._kept(number, encoder)
        if found is None or found.prefix != prefix:
            self._store.remove(prefix)
        return found if found is not None else self._row(number)

    def _without_paths(self, text: str, folder: Path) -> str:
        """A message as a user of the API may read it."""
        bundle = Path(self._lipsync.bundle.path)
        shown = self._store.without_paths(text.replace(f"{folder}/", ""))
        return shown.replace(str(bundle), bundle.name)


def _facts(avatar: Avatar) -> dict[str, Any]:
    video = AvatarVideo(avatar)
    part = Timeline.of_video(avatar.footage(FootageOptions()), video.count, video.clock)
    return {
        "frames": avatar.manifest.frames,
        "seconds": float(part.seconds),
        "width": video.width,
        "height": video.height,
        "source": avatar.manifest.source.path,
        "bytes": sum(file.size for file in avatar.manifest.files()),
    }
