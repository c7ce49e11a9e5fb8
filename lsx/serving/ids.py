"""Ids of jobs and uploads: what sorts by time, and a job's own from its Idempotency-Key."""

from __future__ import annotations

import hashlib
import re
import secrets
import time

__all__ = ["is_id", "keyed_id", "new_id"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's, that nobody reads wrongly
_LENGTH = 26
_ID = re.compile(r"[0-9a-z_]{1,64}")


def new_id(kind: str) -> str:
    """`kind`_ and 26 characters, of which the first ten are the time."""
    return f"{kind}_{_encoded((time.time_ns() // 1_000_000 << 80) | secrets.randbits(80))}"


def keyed_id(kind: str, owner: str, key: str) -> str:
    """The same for the same owner and Idempotency-Key, and for no others."""
    digest = hashlib.sha256(f"{owner}\0{key}".encode()).digest()
    return f"{kind}_{_encoded(int.from_bytes(digest[:16], 'big'))}"


def is_id(text: str) -> bool:
    """Whether the database may be asked for it: PostgreSQL refuses a question with a NUL."""
    return _ID.fullmatch(text) is not None


def _encoded(number: int) -> str:
    return "".join(_ALPHABET[(number >> 5 * place) & 31] for place in reversed(range(_LENGTH)))
