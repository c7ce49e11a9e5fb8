"""The files of avatars: put into the store whole, read in place, or fetched into a cache of a worker's own."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from pydantic import ValidationError

from lsx.bundle.bundle import Bundle
from lsx.core.atomic_files import folder_beside, sha256_of
from lsx.errors import IntegrityError
from lsx.faces.avatar_folder import AVATAR, is_avatar
from lsx.faces.avatar_manifest import AVATAR_SCHEMA, AvatarManifest, encoder_of
from lsx.serving.store import FolderStore, Store

__all__ = ["AvatarFiles", "encoder_digest"]

_GONE = "is gone from the store; make the avatar again"


def encoder_digest(bundle: Bundle) -> str:
    """What an avatar must have been prepared with to be run with this bundle: 16 hexadecimal digits."""
    known_by = f"{AVATAR_SCHEMA}+{bundle.model.resolution}+{encoder_of(bundle)}"
    return hashlib.sha256(known_by.encode()).hexdigest()[:16]


class AvatarFiles:
    """Prepared avatars in a store, each under a prefix of its own. Used by one process, for one avatar at a time."""

    def __init__(self, store: Store, cache: Path, most_bytes: int) -> None:
        """cache : a folder of this process alone, for what is fetched. most_bytes : of it, beside the latest."""
        self._store, self._cache, self._most_bytes = store, cache, most_bytes

    def put(self, prefix: str, folder: Path) -> None:
        """Move an avatar's files to `prefix`, its manifest last. Raises OutputError."""
        manifest = AvatarManifest.model_validate_json((folder / AVATAR).read_bytes())
        for name in (*(file.path for file in manifest.files()), AVATAR):
            self._store.put(f"{prefix}/{name}", folder / name)

    def folder(self, prefix: str) -> Path:
        """A folder with the avatar. Raises IntegrityError for files that have changed, or are not there."""
        if isinstance(self._store, FolderStore):
            place = self._store.fetch(prefix, self._cache)
            if not is_avatar(place):
                raise IntegrityError(f"{prefix}: {_GONE}")
            return place
        target = self._cache / prefix.replace("/", "-")
        if not is_avatar(target):
            self._fetch(self._store, prefix, target)
        os.utime(target)
        self._evict(target)
        return target

    def _fetch(self, store: Store, prefix: str, target: Path) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        for left in self._cache.glob(".*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with folder_beside(target, "fetched avatar", is_avatar) as folder:
            _copied(store, f"{prefix}/{AVATAR}", folder / AVATAR)
            try:
                manifest = AvatarManifest.model_validate_json((folder / AVATAR).read_bytes())
            except ValidationError as error:
                raise IntegrityError(f"{AVATAR}: damaged in the store; make the avatar again") from error
            for file in manifest.files():
                _copied(store, f"{prefix}/{file.path}", folder / file.path)
                if sha256_of(folder / file.path) != file.sha256:
                    raise IntegrityError(f"{file.path}: has changed in the store; make the avatar again")

    def _evict(self, used: Path) -> None:
        """Remove those of the cache that were used longest ago, beyond its bytes."""
        others = [path for path in self._cache.iterdir() if path != used]
        total = 0
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
            total += sum(file.stat().st_size for file in path.iterdir())
            if total > self._most_bytes:
                shutil.rmtree(path, ignore_errors=True)


def _copied(store: Store, key: str, target: Path) -> None:
    try:
        pieces = store.read(key)
    except FileNotFoundError as error:
        raise IntegrityError(f"{key}: {_GONE}") from error
    with target.open("wb") as file:
        for piece in pieces:
            file.write(piece)
