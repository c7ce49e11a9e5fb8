"""Uploads: counted and hashed while they come, looked at, and kept under an id of their own, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa

from lsx.errors import MediaError
from lsx.serving.database import ASSETS, HOUR_MS, now_ms
from lsx.serving.ids import is_id, new_id
from lsx.serving.media_probe import MediaLimits, probed
from lsx.serving.problems import ApiProblem, too_large, unsupported_media
from lsx.serving.schemas import Asset, iso
from lsx.serving.settings import ServeSettings
from lsx.serving.store import Store, free_bytes
from lsx.serving.upload_labels import file_name_of, media_type_of

__all__ = ["Uploads"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PROBES = 4  # at once: each is a process


@dataclass(frozen=True, slots=True)
class _Upload:
    """What is known of an upload before it was looked at."""

    id: str
    owner: str
    name: str
    media_type: str
    size: int
    digest: str


class Uploads:
    """Takes uploads in. Used from the event loop and from threads."""

    def __init__(self, engine: sa.Engine, store: Store, settings: ServeSettings) -> None:
        self._engine, self._store, self._settings = engine, store, settings
        self._folder = settings.data / "incoming"
        self._probes = anyio.CapacityLimiter(_PROBES)
        self._limits = MediaLimits(
            max_seconds=settings.max_seconds, max_pixels=settings.max_pixels, max_streams=settings.max_streams
        )

    async def take(
        self, owner: str, name: str, media_type: str, length: int | None, body: AsyncIterator[bytes]
    ) -> Asset:
        """Keep what comes. length : what the request says of it, or None. Raises ApiProblem; then nothing is left."""
        most = self._settings.max_upload_bytes
        if length is not None and length > most:
            raise too_large(f"the upload has {length} bytes; at most {most} are taken")
        free = free_bytes(self._store, self._settings.data)
        if free is not None and free - (length or 0) < self._settings.min_free_bytes:
            raise _no_space()
        number = new_id("asset")
        part = self._folder / f"{number}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            size, digest = await self._receive(part, body, most)
            upload = _Upload(number, owner, file_name_of(name), media_type_of(media_type), size, digest)
            return await anyio.to_thread.run_sync(self._keep, part, upload, limiter=self._probes)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _no_space() from error
        finally:
            part.unlink(missing_ok=True)

    async def _receive(self, part: Path, body: AsyncIterator[bytes], most: int) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        async with await anyio.open_file(part, "wb") as file:
            async for piece in body:
                size += len(piece)
                if size > most:
                    raise too_large(f"the upload has more than {most} bytes")
                digest.update(piece)
                await file.write(piece)
            await file.flush()
            await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
        if not size:
            raise unsupported_media("the upload is empty")
        return size, digest.hexdigest()

    def _keep(self, part: Path, upload: _Upload) -> Asset:
        """Raises ApiProblem for what is no video or sound, or a larger one than is taken."""
        try:
            facts = probed(part, self._limits)
        except MediaError as error:
            raise unsupported_media(f"{upload.name or 'the upload'}: {str(error).replace(f'{part}: ', '')}") from error
        self._store.put(f"uploads/{upload.id}", part)
        with self._engine.begin() as connection:
            created = now_ms(connection)
            values = {
                "id": upload.id,
                "owner": upload.owner,
                "kind": facts.kind,
                "filename": upload.name,
                "media_type": upload.media_type,
                "size": upload.size,
                "sha256": upload.digest,
                "facts": asdict(facts),
                "created_ms": created,
                "expires_ms": created + int(self._settings.keep_upload_hours * HOUR_MS),
            }
            connection.execute(ASSETS.insert(), values)
            row = connection.execute(sa.select(ASSETS).where(ASSETS.c.id == upload.id)).one()
        return asset_of(row)

    def row(self, owner: str, number: str) -> Any:
        """The row of an owner's upload; None where there is none."""
        if not is_id(number):
            return None
        query = sa.select(ASSETS).where(ASSETS.c.id == number, ASSETS.c.owner == owner)
        with self._engine.connect() as connection:
            return connection.execute(query).first()


def _no_space() -> ApiProblem:
    return ApiProblem(507, "no_space", "the server has no space for uploads now")


def asset_of(row: Any) -> Asset:
    """What the API says of a row of `ASSETS`."""
    facts = row.facts
    return Asset(
        id=row.id,
        kind=row.kind,
        filename=row.filename,
        size=row.size,
        sha256=row.sha256,
        duration=facts["duration"],
        width=facts["width"],
        height=facts["height"],
        fps=facts["fps"],
        created_at=str(iso(row.created_ms)),
        expires_at=iso(row.expires_ms),
    )
