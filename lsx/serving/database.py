"""The database: the engine on SQLite or PostgreSQL, and the tables that lsx keeps beside DBOS's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from dbos import DBOS
from sqlalchemy import event

from lsx.errors import UsageError

__all__ = [
    "ASSETS",
    "AVATARS",
    "HOUR_MS",
    "JOBS",
    "KEYS",
    "PREPARATIONS",
    "UNTOLD",
    "WORKERS",
    "check_local",
    "database_url",
    "engine_for",
    "finish",
    "migrate",
    "now_ms",
    "now_text",
    "persistently",
    "reader",
]

_T = TypeVar("_T")

HOUR_MS = 3_600_000
_BUSY_MS = 30_000
_STANDING_MS = 10_000  # a transaction in which nothing is asked for longer is ended: its machine is gone, or stopped
_AT_ONCE = 4  # connections beyond those that are kept
_REST_SECONDS = 1.0  # a connection that nobody used for longer is tried before it is used
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "ceph"})

_IN_TURN = sa.text("SELECT pg_advisory_xact_lock(7205119)")  # PostgreSQL's lock of those who make tables

_tables = sa.MetaData()


class _Json(sa.TypeDecorator[Any]):
    """A JSON value as text, the same on every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        del dialect
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        del dialect
        return None if value is None else json.loads(value)


JOBS = sa.Table(
    "lsx_jobs",
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("request", _Json, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("finished_ms", sa.BigInteger, index=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("progress", _Json),
    sa.Column("retry_of", sa.String(64)),
    sa.Column("expires_ms", sa.BigInteger, index=True),
    sa.Column("announced", sa.String(16)),
)
"""Jobs beside DBOS's workflows of the same ids. `finished_ms` frees the job's place in the queue; whether it is done,
and what it made, DBOS alone says. `announced` is the last status for which a webhook was set going."""

UNTOLD = sa.or_(JOBS.c.announced.is_(None), JOBS.c.announced == sa.literal_column("'PROCESSING'"))
"""Jobs of whose end nobody was told yet."""
_WAITING = sa.and_(JOBS.c.started_ms.is_(None), JOBS.c.finished_ms.is_(None))
# Both have an index without what has ended, of which there are millions: what looks often looks at the others alone.
for _name, _columns, _of in (
    ("lsx_jobs_untold", (JOBS.c.finished_ms,), UNTOLD),
    ("lsx_jobs_waiting", (JOBS.c.priority, JOBS.c.created_ms, JOBS.c.id), _WAITING),
):
    sa.Index(_name, *_columns, postgresql_where=_of, sqlite_where=_of)
sa.Index("lsx_jobs_of_owner", JOBS.c.owner, JOBS.c.created_ms, JOBS.c.id)

ASSETS = sa.Table(
    "lsx_assets",
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("facts", _Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, index=True),
)
"""Uploads; `facts` is what the probe found."""

AVATARS = sa.Table(
    "lsx_avatars",
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("request", _Json, nullable=False),
    sa.Column("facts", _Json, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("started_ms", sa.BigInteger),
    sa.Column("finished_ms", sa.BigInteger, index=True),
    sa.Column("progress", _Json),
)
"""Avatars beside DBOS's workflows of the same ids. `facts` is what the probe found of the video; `finished_ms` frees
the place in the queue. An avatar is ready when there is a preparation of it."""

PREPARATIONS = sa.Table(
    "lsx_preparations",
    _tables,
    sa.Column("avatar", sa.ForeignKey("lsx_avatars.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("encoder", sa.String(16), primary_key=True),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("facts", _Json, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("used_ms", sa.BigInteger, nullable=False),
)
"""What was prepared, once for each VAE encoder: whole in the store under `prefix` before it is named here."""

KEYS = sa.Table(
    "lsx_keys",
    _tables,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("scopes", _Json, nullable=False),
    sa.Column("most_queued", sa.Integer),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("revoked_ms", sa.BigInteger),
)

WORKERS = sa.Table(
    "lsx_workers",
    _tables,
    sa.Column("executor", sa.String(128), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("facts", _Json, nullable=False),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
)
"""Processes that work for this database, with what each says of itself, and when it was last seen."""


def database_url(text: str | None, data: Path) -> str:
    """SQLAlchemy's address of the database that is asked for, or of a SQLite file in the data folder.

    Raises UsageError for another kind of database, and for a SQLite file on a network's file system.
    """
    if text is None:
        return f"sqlite:///{(data / 'jobs.sqlite').absolute()}"
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # their texts have parts of the address, and so of the password
        raise UsageError("the database's address cannot be read; give postgresql://USER:PASSWORD@HOST/NAME") from None
    kind = url.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise UsageError(f"the database is of kind {kind}; give postgresql:// or sqlite:///")
    if kind == "sqlite":
        return text
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def engine_for(url: str, *, pool: int = 5) -> sa.Engine:
    """An engine as DBOS wants it: on SQLite writers in turn, nothing lost at a power cut, readers beside them."""
    if not url.startswith("sqlite"):
        return _server_engine(url, pool)
    engine = sa.create_engine(url, pool_size=pool, max_overflow=pool, connect_args={"timeout": _BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in (f"busy_timeout={_BUSY_MS}", "foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def reader(engine: sa.Engine) -> sa.Engine:
    """`engine` for statements that read: each is a transaction of its own, which takes a server no more round trips."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _server_engine(url: str, pool: int) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=pool, max_overflow=max(pool, _AT_ONCE))

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        # Else what a lost machine had locked, as the row of its job, stays locked until the network gives it up.
        connection.execute(f"SET idle_in_transaction_session_timeout = {_STANDING_MS}")
        connection.commit()

    @event.listens_for(engine, "checkin")
    def _rests(_connection: Any, record: Any) -> None:
        record.info["rests"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _wakes(connection: Any, record: Any, _proxy: Any) -> None:
        # What SQLAlchemy's pool_pre_ping asks each time, which is a fifth of a short request's time.
        rested = time.monotonic() - record.info.get("rests", time.monotonic())
        if rested > _REST_SECONDS and not _is_alive(engine, connection):
            raise sa.exc.InvalidatePoolError

    @event.listens_for(engine, "handle_error")
    def _away(context: Any) -> None:
        # DBOS waits for a connection that was lost; one that cannot be made it knows by a few of its texts alone, and
        # ends the job with the others (a host without an address, a socket that is gone).
        if context.connection is None:
            context.is_disconnect = True

    return engine


def _is_alive(engine: sa.Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except connection.Error:
        return False


def check_local(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Refuse a folder on a network's file system, where SQLite's locks do not hold. Raises UsageError."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return
    place = path.resolve()
    over = [(where, kind) for _, where, kind, *_ in lines if place.is_relative_to(where.replace("\\040", " "))]
    where, kind = max(over, key=lambda found: len(found[0]), default=("", ""))
    if kind in _NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"{path} is on a network's file system ({kind} at {where}), where SQLite loses jobs; give a local folder, "
            "or --database postgresql://..."
        )


def migrate(url: str) -> None:
    """Make DBOS's tables and lsx's, and lsx's indexes, where they are not there yet."""
    engine = engine_for(url, pool=1)
    try:
        DBOS.migrate(url.replace("postgresql+psycopg://", "postgresql://"))
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(_IN_TURN)  # machines that start at once, of which one makes them
            _tables.create_all(connection)
            for table in _tables.sorted_tables:
                for index in table.indexes:  # of a table that an older lsx made
                    index.create(connection, checkfirst=True)
    finally:
        engine.dispose()


def finish(connection: sa.Connection, number: str, keep_hours: float) -> None:
    """Free a job's place in the queue, and keep the job for so long from now; what has ended stays as it is."""
    now = now_ms(connection)
    ended = JOBS.update().where(JOBS.c.id == number, JOBS.c.finished_ms.is_(None))
    connection.execute(ended.values(finished_ms=now, expires_ms=now + int(keep_hours * HOUR_MS)))


def persistently(work: Callable[[], _T], pause: float = 0.5, longest: float = 10.0) -> _T:
    """What `work` gives, tried again as long as the database is away."""
    while True:
        try:
            return work()
        except sa.exc.OperationalError:
            time.sleep(pause)
            pause = min(2 * pause, longest)


def now_text(connection: sa.Connection) -> str:
    """The database's own time in its SQL, in milliseconds since 1970: one clock for all machines."""
    if connection.dialect.name == "sqlite":
        return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
    return "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint"


def now_ms(connection: sa.Connection) -> int:
    """The database's own time, in milliseconds since 1970."""
    return int(connection.execute(sa.text(f"SELECT {now_text(connection)}")).scalar_one())
