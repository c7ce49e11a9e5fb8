"""Webhooks: their signatures, against the standard's own library, and what is tried again."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from lsx.errors import UsageError
from lsx.serving.webhooks import event_of, hook_secret, hook_type, send, signature


def test_verified_by_the_standards_library(tmp_path: Path) -> None:
    import time

    secret = hook_secret(None, tmp_path)
    assert hook_secret(None, tmp_path) == secret
    assert (tmp_path / "webhook-secret").stat().st_mode & 0o077 == 0
    body = event_of("COMPLETED", {"id": "job_1"}, 1_700_000_000)
    seconds = int(time.time())
    headers = {
        "webhook-id": "hook-1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature(secret, "hook-1", seconds, body),
    }
    assert Webhook(secret).verify(body, headers)["data"] == {"id": "job_1"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_two_secrets_while_one_goes(tmp_path: Path) -> None:
    first, second = hook_secret(None, tmp_path), "whsec_c2Vjb25kLXNlY3JldC1vZi0zMi1ieXRlcw=="
    both = signature(hook_secret(f"{first} {second}", tmp_path), "id", 1, b"{}")
    assert both.split() == [signature(first, "id", 1, b"{}"), signature(second, "id", 1, b"{}")]
    with pytest.raises(UsageError, match="whsec_"):
        hook_secret("secret", tmp_path)


def test_events() -> None:
    assert json.loads(event_of("FAILED", {}, 0))["type"] == "job.failed"
    assert json.loads(event_of("FAILED", {}, 0))["timestamp"] == "1970-01-01T00:00:00Z"
    assert hook_type("PENDING") is None


def test_a_host_without_an_address_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that is away for a moment loses no event."""

    def away(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    secret = "whsec_" + base64.b64encode(b"0" * 24).decode()
    assert send("https://example.com/", "hook-1", b"{}", secret, ()) is False
