"""A bundle that says it is a student's."""

from __future__ import annotations

from typing import Any

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import StudentEntry

__all__ = ["STUDENT_ENTRY", "as_student"]

STUDENT_ENTRY: dict[str, Any] = {
    "steps": 2,
    "guidance": 1.0,
    "sampler": "ddim-trailing",
    "cache_interval": None,
    "timesteps": [999, 499],
    "teacher": "ab" * 32,
    "teacher_guidance": 1.5,
}


def as_student(bundle: Bundle, **changes: Any) -> Bundle:
    """The same bundle, opened as that of a student of two steps. changes : of its entry."""
    entry = StudentEntry.model_validate(STUDENT_ENTRY | changes)
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"student": entry}))
