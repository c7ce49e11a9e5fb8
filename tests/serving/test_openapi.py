"""The API against its own description: whatever is sent, the answer is one that the schema tells of, and no 500."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as drawing
from schemathesis.specs.openapi.checks import positive_data_acceptance

from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings

_DRAWN: dict[str, Any] = {
    "max_examples": 8,
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "database": None,
}
_LEFT_OUT = ("/v1/jobs/{job_id}/events", "/v1/health/ready")
"""What answers until a job has ended, and what answers 503 where there is no worker."""


def test_every_answer_is_described(settings: ServeSettings) -> None:
    app = create_app(settings)
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 12
    for operation in operations:
        if operation.path in _LEFT_OUT:
            continue

        @drawing(
            max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(headers={"Host": "127.0.0.1:8000"})
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])

        check()
    app.state.engine.dispose()
