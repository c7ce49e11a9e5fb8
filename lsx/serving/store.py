"""Where uploads and results lie: a folder of this machine, or an object store that several machines share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from lsx.errors import OutputError, UsageError
from lsx.serving.settings import without_secrets

__all__ = ["FolderStore", "ObjectStore", "Store", "StoredFile", "free_bytes", "store_at"]

_PART = 8 << 20
_NO_CREATE = "status code: 501"  # what S3's likes answer to a header that they do not know


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a store."""

    key: str
    size: int
    modified_ms: int


class FolderStore:
    """A folder. Keys are paths below it, made of ids alone."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, file: Path) -> None:
        """Move `file` to `key`, on disk when this returns; what is there already stays. Raises OutputError."""
        target = self._root / key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            if not target.exists():
                _moved(file, target)
            _sync_folder(target.parent)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror}") from error

    def fetch(self, key: str, scratch: Path) -> Path:
        """A path at which the file can be read; `scratch` is a folder for a copy, which is not needed here."""
        del scratch
        return self._root / key

    def without_paths(self, text: str) -> str:
        """A message as a user of the API may read it: files by their keys, uploads by their ids."""
        return text.replace(f"{self._root}/uploads/", "").replace(f"{self._root}/", "")

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, in pieces. Raises FileNotFoundError at once."""
        return _pieces((self._root / key).open("rb"), start, stop)

    def size(self, key: str) -> int | None:
        """Bytes; None where it is not there."""
        try:
            return (self._root / key).stat().st_size
        except OSError:
            return None

    def signed(self, key: str, seconds: int) -> str | None:
        """None: a folder has no addresses of its own."""
        del key, seconds
        return None

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """Every file whose key begins with the folder `prefix`."""
        for path in sorted((self._root / prefix).rglob("*")):
            with suppress(OSError):
                if path.is_file():
                    found = path.stat()
                    key = path.relative_to(self._root).as_posix()
                    yield StoredFile(key, found.st_size, int(found.st_mtime * 1000))

    def remove(self, prefix: str) -> None:
        """Remove the file `prefix`, or everything below it."""
        target = self._root / prefix
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Left on its disk."""
        return shutil.disk_usage(self._root).free if self._root.exists() else None


class ObjectStore:
    """S3, GCS or Azure. Keys are made of ids alone."""

    def __init__(self, store: Any) -> None:
        self._store, self._creates = store, True

    def put(self, key: str, file: Path) -> None:
        """Upload `file` to `key`, whole or not at all; what is there already stays. Raises OutputError.

        Of two at once the first stays, too, but for files of more than 8 MiB, which come in parts, and for stores
        without conditional writes.
        """
        try:
            if self.size(key) is None and not self._created(key, file):
                obstore.put(self._store, key, file, use_multipart=file.stat().st_size > _PART, chunk_size=_PART)
        except AlreadyExistsError:
            pass
        except (BaseError, OSError) as error:
            raise OutputError(f"{key}: cannot be stored: {_first_line(error)}") from error
        file.unlink(missing_ok=True)

    def _created(self, key: str, file: Path) -> bool:
        """Whether the store took the file as one that must not be there. Raises AlreadyExistsError, BaseError."""
        if not self._creates or file.stat().st_size > _PART:
            return False
        try:
            obstore.put(self._store, key, file, mode="create", use_multipart=False)
        except NotImplementedError:  # as AWS_CONDITIONAL_PUT=disabled asks for
            self._creates = False
        except GenericError as error:
            if _NO_CREATE not in str(error):
                raise
            self._creates = False
        return self._creates

    def fetch(self, key: str, scratch: Path) -> Path:
        """A copy of the file in the folder `scratch`. Raises FileNotFoundError."""
        target = scratch / key.replace("/", "-")
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            with part.open("wb") as file:
                for piece in self.read(key):
                    file.write(piece)
            part.rename(target)
        return target

    def without_paths(self, text: str) -> str:
        """The same: there are none of its own."""
        return text

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `stop`, in pieces. Raises FileNotFoundError at once."""
        options: Any = {"range": {"offset": start} if stop is None else (start, stop)}
        found = obstore.get(self._store, key, options=options if start or stop is not None else None)
        return (bytes(piece) for piece in found.stream(min_chunk_size=_PART))

    def size(self, key: str) -> int | None:
        """Bytes; None where it is not there."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def signed(self, key: str, seconds: int) -> str | None:
        """An address at which anybody may read the file for so long; None where the store has none of its own."""
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        return str(obstore.sign(self._store, "GET", key, timedelta(seconds=seconds)))

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """Every file whose key begins with the folder `prefix`."""
        for batch in obstore.list(self._store, prefix):
            for found in batch:
                yield StoredFile(found["path"], found["size"], int(found["last_modified"].timestamp() * 1000))

    def remove(self, prefix: str) -> None:
        """Remove the file `prefix`, or everything below it."""
        keys = [found.key for found in self.list(prefix)]
        with suppress(FileNotFoundError):
            obstore.delete(self._store, keys or prefix)

    def free_bytes(self) -> int | None:
        """None: it is not bounded."""
        return None


Store = FolderStore | ObjectStore


def store_at(address: str | None, data: Path) -> Store:
    """The store at an address such as s3://BUCKET/PREFIX, gs:// or az://; None is the folder `store` of `data`.

    Credentials are those of the environment, as the cloud's own tools read them. Raises UsageError.
    """
    if address is None:
        return FolderStore(data / "store")
    if "://" not in address:
        return FolderStore(Path(address))
    try:
        return ObjectStore(from_url(address))
    except (BaseError, ValueError) as error:
        shown = without_secrets(address)
        raise UsageError(f"the store's address is {shown}: {_first_line(error).replace(address, shown)}") from None


def free_bytes(store: Store, data: Path) -> int | None:
    """Left in the data folder, where uploads come in, or in the store, whichever has less; None where nothing is."""
    return min(
        (free for free in (FolderStore(data).free_bytes(), store.free_bytes()) if free is not None), default=None
    )


def _moved(file: Path, target: Path) -> None:
    """Under its name when whole, also from another disk."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        file.rename(part)
    except OSError:
        shutil.copyfile(file, part)
        with part.open("rb") as copied:
            os.fsync(copied.fileno())
        file.unlink()
    part.rename(target)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pieces(file: Any, start: int, stop: int | None) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = None if stop is None else stop - start
        while left is None or left > 0:
            piece = file.read(_PART if left is None else min(_PART, left))
            if not piece:
                return
            left = None if left is None else left - len(piece)
            yield piece


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
