"""Webhooks as Standard Webhooks 1.0 has them: signed, the same id on every try, each event delivered once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsx.core.atomic_files import write_whole
from lsx.errors import UsageError
from lsx.serving.outside import AddressRefused, check_url, opened

__all__ = ["event_of", "hook_secret", "hook_type", "send", "signature"]

_PREFIX = "whsec_"
_TIMEOUT = 15.0
_GONE = 410
_TYPES = {
    "PROCESSING": "job.started",
    "COMPLETED": "job.completed",
    "FAILED": "job.failed",
    "REJECTED": "job.rejected",
    "CANCELED": "job.canceled",
}


def hook_type(status: str) -> str | None:
    """The event's name for a job's status; None where that is no event."""
    return _TYPES.get(status)


def event_of(status: str, job: dict[str, Any], seconds: float) -> bytes:
    """The body: what happened, when (seconds since 1970), and the job."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    return json.dumps({"type": hook_type(status), "timestamp": stamp, "data": job}, separators=(",", ":")).encode()


def hook_secret(given: str | None, data: Path) -> str:
    """The secret that signs: the one that is given, or one that the data folder keeps. Raises UsageError."""
    file = data / "webhook-secret"
    if given is None:
        if not file.exists():
            write_whole(file, (_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()).encode())
            file.chmod(0o600)
        given = file.read_text(encoding="ascii").strip()
    for secret in given.split():
        _bytes_of(secret)
    return given


def _bytes_of(secret: str) -> bytes:
    try:
        if not secret.startswith(_PREFIX):
            raise ValueError
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError as error:
        raise UsageError(
            "a webhook's secret is whsec_ and base64; two, with a space between, while one goes"
        ) from error


def signature(secret: str, number: str, seconds: int, body: bytes) -> str:
    """The header webhook-signature: one entry for each of the secrets."""
    signed = f"{number}.{seconds}.".encode() + body
    digests = (hmac.new(_bytes_of(each), signed, hashlib.sha256).digest() for each in secret.split())
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def send(url: str, number: str, body: bytes, secret: str, private: Sequence[str]) -> bool:
    """Deliver an event; whether it needs no further try: it was taken, or the receiver wants none (410).

    Raises AddressRefused where nothing may be sent to that URL.
    """
    parts = check_url(url, allowed=None, private=private)
    seconds = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "lsx",
        "webhook-id": number,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature(secret, number, seconds, body),
    }
    try:
        with opened("POST", parts, body=body, headers=headers, timeout=_TIMEOUT, private=private) as response:
            return 200 <= response.status < 300 or response.status == _GONE
    except AddressRefused:
        raise
    except (OSError, http.client.HTTPException):
        return False
