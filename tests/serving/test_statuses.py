"""Statuses: every word of DBOS's has one of the API's, and errors their codes."""

from __future__ import annotations

import pytest
from dbos import DBOSPortableJSONSerializer
from dbos._serialization import PortableWorkflowError
from dbos._sys_db import WorkflowStatusString

from lsx.serving.statuses import STATUSES, TERMINAL, outcome_of


def test_every_status_of_dbos_has_a_word() -> None:
    assert set(STATUSES) == {status.value for status in WorkflowStatusString}
    assert set(STATUSES.values()) | {"REJECTED"} > TERMINAL


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        ("ENQUEUED", None, ("PENDING", "", "")),
        ("PENDING", None, ("PROCESSING", "", "")),
        ("SUCCESS", None, ("COMPLETED", "", "")),
        ("CANCELLED", None, ("CANCELED", "canceled", "")),
        ("ERROR", PortableWorkflowError("no_face: none in it", "Rejected"), ("REJECTED", "no_face", "none in it")),
        ("ERROR", PortableWorkflowError("disk full", "OutputError"), ("FAILED", "output_failed", "disk full")),
    ],
)
def test_outcomes(status: str, error: object, expected: tuple[str, str, str]) -> None:
    assert outcome_of(status, error, None, 1000) == expected


def test_what_is_unexpected_tells_no_secrets() -> None:
    found = outcome_of("ERROR", PortableWorkflowError("/home/me/secret", "KeyError"), None, 0)
    assert found[:2] == ("FAILED", "internal_error")
    assert "secret" not in found[2]


def test_a_deadline_that_passed_is_no_users_cancel() -> None:
    assert outcome_of("CANCELLED", None, 900, 1000)[1] == "timed_out"
    assert outcome_of("CANCELLED", None, 1100, 1000)[1] == "canceled"
    assert outcome_of("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None, None, 0)[1] == "worker_crashed"


def test_the_serializer_is_json() -> None:
    assert DBOSPortableJSONSerializer().serialize({"a": 1}) == '{"a":1}'
