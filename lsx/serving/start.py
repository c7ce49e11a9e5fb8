"""What the command line needs of serving: checks before the start, the start, keys, and a diagnosis."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import obstore
import sqlalchemy as sa

from lsx.bundle.bundle import Bundle
from lsx.core.atomic_files import check_folder
from lsx.errors import LsxError, OutputError, UsageError
from lsx.serving.api_keys import KeyBook
from lsx.serving.database import check_local, database_url, engine_for, migrate
from lsx.serving.heartbeat import seen_since
from lsx.serving.listening import bound
from lsx.serving.logs import log_to_stderr
from lsx.serving.processes import locked, supervising, wait_for_end
from lsx.serving.settings import ServeSettings
from lsx.serving.store import FolderStore, store_at
from lsx.serving.supervisor import Supervisor, migrated, places_of
from lsx.serving.webhooks import hook_secret

__all__ = ["Check", "addressed", "check_start", "diagnose", "key_book", "serve", "serve_actors"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a diagnosis."""

    name: str
    fine: bool
    said: str


def _prepared(settings: ServeSettings) -> str:
    """Make the data folder; the database's address. Raises OutputError, UsageError."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{settings.data}: cannot be created: {error.strerror}") from error
    check_folder(settings.data)
    url = database_url(settings.database, settings.data)
    if url.startswith("sqlite"):
        check_local(settings.data)
        check_local(Path(sa.make_url(url).database or "").parent)
    return url


def check_start(settings: ServeSettings, *, http: bool) -> None:
    """Find what would end a server soon, before any process is started. Raises LsxError."""
    url = _prepared(settings)
    if url.startswith("sqlite") and settings.store is not None and "://" in settings.store:
        raise UsageError("a store that machines share needs a database that they share: --database postgresql://...")
    with supervising(settings):
        if http:
            wait_for_end(settings, "http")
            bound(settings.host, settings.port).close()
    places_of(settings, http=http)
    store_at(settings.store, settings.data)
    hook_secret(settings.hook_secret, settings.data)
    if http and not settings.is_loopback and not key_book(settings).any():
        raise UsageError(
            f"--host {settings.host} can be reached by others, and there is no key; make one: lsx serve key create NAME"
        )


@contextmanager
def addressed(settings: ServeSettings) -> Iterator[ServeSettings]:
    """The settings, with a free port in place of 0, which stays theirs until the block ends. Raises UsageError."""
    with bound(settings.host, settings.port) as held:
        yield settings.model_copy(update={"port": held.getsockname()[1]})


def serve(settings: ServeSettings, *, http: bool) -> None:
    """Serve until SIGTERM. Raises LsxError."""
    log_to_stderr(settings.log_level, process="supervisor", machine=settings.machine)
    migrated(settings)
    Supervisor(settings, places_of(settings, http=http)).run()


def serve_actors(settings: ServeSettings, address: str, actors: int | None = None) -> None:
    """Keep workers on a Ray cluster until SIGTERM. Raises LsxError."""
    from lsx.serving.on_ray import serve_on_ray, settings_on_ray

    log_to_stderr(settings.log_level, process="on-ray", machine=settings.machine)
    migrated(settings)
    serve_on_ray(settings_on_ray(settings), address, actors)


def key_book(settings: ServeSettings) -> KeyBook:
    """The keys of the settings' database, which is made ready where it is new. Raises OutputError, UsageError."""
    url = _prepared(settings)
    try:
        migrate(url)
    except sa.exc.SQLAlchemyError as error:
        raise OutputError(f"the database cannot be made ready: {_first_line(error)}") from error
    return KeyBook(engine_for(url))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def diagnose(settings: ServeSettings) -> list[Check]:
    """Everything that serving needs, looked at one by one. A data folder that is not there is not made."""
    parent = next((folder for folder in settings.data.absolute().parents if folder.is_dir()), None)
    if settings.data.exists() or parent is None or not os.access(parent, os.W_OK):
        return _looked_at(settings)
    with tempfile.TemporaryDirectory(prefix=".lsx-doctor-", dir=parent) as folder:
        tried = _looked_at(settings.model_copy(update={"data": Path(folder)}))
    return [replace(check, said=check.said.replace(folder, str(settings.data))) for check in tried]


def _looked_at(settings: ServeSettings) -> list[Check]:
    return [
        _checked("bundle", lambda: _bundle(settings)),
        _checked(
            "data", lambda: f"{settings.data}, {shutil.disk_usage(_prepared_data(settings)).free / 2**30:.1f} GiB free"
        ),
        _checked("database", lambda: _database(settings)),
        _checked("store", lambda: _store(settings)),
        _checked("keys", lambda: _keys(settings)),
        _checked("address", lambda: _address(settings)),
        _checked("workers", lambda: ", ".join(place.name for place in places_of(settings, http=False)) or "none"),
    ]


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except LsxError as error:
        return Check(name, False, str(error))
    except (OSError, sa.exc.SQLAlchemyError, obstore.exceptions.BaseError) as error:
        return Check(name, False, _first_line(error))


def _prepared_data(settings: ServeSettings) -> str:
    _prepared(settings)
    return str(settings.data)


def _bundle(settings: ServeSettings) -> str:
    if settings.bundle is None:
        raise UsageError("none is given")
    manifest = Bundle.open(settings.bundle).manifest
    return f"{settings.bundle}, {manifest.model.resolution} px, {manifest.precision}"


def _database(settings: ServeSettings) -> str:
    engine = engine_for(_prepared(settings), pool=1)
    try:
        with engine.connect() as connection:
            began = time.perf_counter()
            connection.execute(sa.text("SELECT 1"))
            seconds = time.perf_counter() - began
            seen = []
            with suppress(sa.exc.SQLAlchemyError):
                seen = [row.executor for row in seen_since(connection, 30)]
        return f"{engine.dialect.name}, {1000 * seconds:.1f} ms; seen lately: {', '.join(seen) or 'no process'}"
    finally:
        engine.dispose()


def _store(settings: ServeSettings) -> str:
    store = store_at(settings.store, settings.data)
    if isinstance(store, FolderStore):
        return str(settings.store or settings.data / "store")
    probe = settings.data / "store-probe"
    probe.write_bytes(b"lsx")
    store.put("probe", probe)
    read = b"".join(store.read("probe"))
    store.remove("probe")
    if read != b"lsx":
        raise OutputError("it does not give back what it was given")
    return str(settings.store)


def _keys(settings: ServeSettings) -> str:
    count = sum(key.revoked_ms is None for key in key_book(settings).every())
    if not count and not settings.is_loopback:
        raise UsageError("there is none, and --host can be reached by others")
    return f"{count}" if count else "none; loopback is open to everybody on this machine"


def _address(settings: ServeSettings) -> str:
    try:
        bound(settings.host, settings.port).close()
    except UsageError:
        with locked(settings.data / "locks", "supervisor") as free:
            if free:
                raise
        return f"{settings.url}, where the lsx serve of this folder listens"
    return settings.url
