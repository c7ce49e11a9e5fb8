"""The words of a job's life: what the API says of what DBOS keeps, and of why a job has no result."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["ERROR_CODES", "STATUSES", "TERMINAL", "JobStatus", "Rejected", "outcome_of", "rejection"]

JobStatus = Literal["PENDING", "PROCESSING", "COMPLETED", "REJECTED", "FAILED", "CANCELED"]

STATUSES: dict[str, JobStatus] = {
    "ENQUEUED": "PENDING",
    "DELAYED": "PENDING",
    "PENDING": "PROCESSING",
    "SUCCESS": "COMPLETED",
    "ERROR": "FAILED",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "FAILED",
    "CANCELLED": "CANCELED",
}
"""The API's word for each of DBOS's; an ERROR that `Rejected` ended is REJECTED."""

TERMINAL = frozenset({"COMPLETED", "REJECTED", "FAILED", "CANCELED"})
"""Those that never change."""

ERROR_CODES = {
    "UsageError": "invalid_options",
    "MediaError": "unreadable_media",
    "FaceNotFound": "no_face",
    "BundleError": "unfit_bundle",
    "OutputError": "output_failed",
    "NotVerified": "not_verified",
    "OutOfDeviceMemory": "out_of_device_memory",
    "NonFiniteOutput": "not_finite",
    "DeviceLost": "device_lost",
    "EngineError": "engine_failed",
}
"""The API's code for each error that a run ends with; others are `internal_error`."""

CRASHED, CANCELED, TIMED_OUT, INTERNAL = "worker_crashed", "canceled", "timed_out", "internal_error"


class Rejected(Exception):
    """What is asked cannot be made of these inputs: found before the GPU was asked. Says `code: message`."""


def rejection(error: Exception, message: str) -> Rejected:
    """What to raise for an error of the inputs, with its code and a message that names nothing of this machine."""
    return Rejected(f"{ERROR_CODES.get(type(error).__name__, 'refused')}: {message}")


def outcome_of(status: str, error: Any, deadline_ms: int | None, ended_ms: int) -> tuple[JobStatus, str, str]:
    """The API's status, error code and message of a job that DBOS has in `status`.

    error : what DBOS keeps of the error: an exception with `name` and `message`, or None. deadline_ms : when DBOS would
    cancel it.
    """
    if status == "CANCELLED":
        late = deadline_ms is not None and ended_ms >= deadline_ms
        return ("CANCELED", TIMED_OUT, "the job took longer than its deadline") if late else ("CANCELED", CANCELED, "")
    if status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return "FAILED", CRASHED, "the worker ended in the midst of this job several times, and it is not tried again"
    if status != "ERROR":
        return STATUSES[status], "", ""
    name, message = getattr(error, "name", type(error).__name__), str(getattr(error, "message", error))
    if name == "Rejected":
        code, _, said = message.partition(": ")
        return "REJECTED", code, said
    known = name in ERROR_CODES
    said = message if known else f"{name} (unexpected; the worker's log says more)"
    return "FAILED", ERROR_CODES.get(name, INTERNAL), said
