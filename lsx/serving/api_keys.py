"""Keys of the API: random, kept as hashes, with scopes and a quota each."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from lsx.errors import UsageError
from lsx.serving.database import KEYS, now_ms

__all__ = ["SCOPES", "ApiKey", "KeyBook", "Scope"]

Scope = Literal["jobs", "read", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PREFIX = "lsx"
_CACHE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the database has it, without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    most_queued: int | None
    created_ms: int
    revoked_ms: int | None

    def may(self, scope: Scope) -> bool:
        """Whether it has that scope; `admin` has all, and `jobs` may read."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "read" and "jobs" in self.scopes)


class KeyBook:
    """The keys of a database. Used from any thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, tuple[str, ApiKey]]] = (-_CACHE_SECONDS, {})

    def create(self, name: str, scopes: Sequence[str], most_queued: int | None = None) -> tuple[ApiKey, str]:
        """A new key, and its text, which is shown this once. Raises UsageError for a scope that is none."""
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise UsageError(f"scope is {', '.join(unknown) or 'missing'}; choose from {', '.join(SCOPES)}")
        number, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        text = f"{_PREFIX}_{number}_{secret}"
        with self._engine.begin() as connection:
            key = ApiKey(number, name, tuple(scopes), most_queued, now_ms(connection), None)
            values = {"id": number, "name": name, "sha256": _hash(text), "scopes": list(scopes)}
            connection.execute(
                KEYS.insert().values(**values, most_queued=most_queued, created_ms=key.created_ms, revoked_ms=None)
            )
        self._forget()
        return key, text

    def every(self) -> list[ApiKey]:
        """All of them, also those that were revoked."""
        with self._engine.connect() as connection:
            return [_key(row) for row in connection.execute(sa.select(KEYS).order_by(KEYS.c.created_ms))]

    def revoke(self, number: str) -> None:
        """End a key, within five seconds everywhere. Raises UsageError for one that there is not."""
        with self._engine.begin() as connection:
            changed = KEYS.update().where(KEYS.c.id == number, KEYS.c.revoked_ms.is_(None))
            if not connection.execute(changed.values(revoked_ms=now_ms(connection))).rowcount:
                raise UsageError(f"there is no key {number} that is not revoked; `lsx serve key list` has all")
        self._forget()

    def is_fresh(self) -> bool:
        """Whether the next answer needs no database."""
        return time.monotonic() - self._known[0] < _CACHE_SECONDS - 1

    def any(self) -> bool:
        """Whether there is a key that works."""
        return bool(self._working())

    def find(self, text: str) -> ApiKey | None:
        """The key of that text; None where it is none, or revoked."""
        prefix, _, rest = text.partition("_")
        found = self._working().get(rest.partition("_")[0]) if prefix == _PREFIX else None
        if found is None or not hmac.compare_digest(found[0], _hash(text)):
            return None
        return found[1]

    def _forget(self) -> None:
        with self._lock:
            self._known = (-_CACHE_SECONDS, {})

    def _working(self) -> dict[str, tuple[str, ApiKey]]:
        """Hash and key by id, at most five seconds old."""
        with self._lock:
            read, known = self._known
            if time.monotonic() - read < _CACHE_SECONDS:
                return known
            with self._engine.connect() as connection:
                rows = connection.execute(sa.select(KEYS).where(KEYS.c.revoked_ms.is_(None))).all()
            known = {row.id: (row.sha256, _key(row)) for row in rows}
            self._known = (time.monotonic(), known)
            return known


def _key(row: Any) -> ApiKey:
    return ApiKey(row.id, row.name, tuple(row.scopes), row.most_queued, row.created_ms, row.revoked_ms)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
