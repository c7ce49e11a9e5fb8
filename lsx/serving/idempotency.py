"""Idempotency keys: the same key and request give what they gave before, and another request is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa

from lsx.serving.problems import invalid

__all__ = ["fingerprint_of", "same_request"]


def fingerprint_of(content: Any) -> str:
    """What tells one request's JSON from another's."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def same_request(connection: sa.Connection, table: sa.Table, number: str, fingerprint: str) -> bool:
    """Whether the row is there, from this request. Raises ApiProblem where it is from another."""
    before = connection.execute(sa.select(table.c.fingerprint).where(table.c.id == number)).scalar()
    if before is not None and before != fingerprint:
        raise invalid("this Idempotency-Key came with another request before", code="idempotency_key_reused")
    return before is not None
