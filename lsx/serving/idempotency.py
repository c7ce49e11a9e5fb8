"""Idempotency keys: the same key and request give what they gave before, and another request is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lsx.serving.problems import invalid

__all__ = ["check_same", "fingerprint_of"]


def fingerprint_of(content: Any) -> str:
    """What tells one request's JSON from another's."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same(before: str, fingerprint: str) -> None:
    """Raise ApiProblem where a number's request was another one before."""
    if before != fingerprint:
        raise invalid("this Idempotency-Key came with another request before", code="idempotency_key_reused")
