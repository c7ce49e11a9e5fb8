"""The API against its own description: whatever is sent, the answer is one that the schema tells of, and no 500."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as drawing
from schemathesis.specs.openapi.checks import positive_data_acceptance

from lsx.serving.http_app import create_app
from lsx.serving.job_options import JobOptions, PrepareOptions
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


_VALUES: dict[str, Any] = {"boolean": True, "string": "3", "integer": 3, "number": 3.5, "array": [], "object": {}}


def _types(schema: dict[str, Any]) -> set[str]:
    """JSON's types that a schema takes."""
    of = {schema["type"]} if "type" in schema else set()
    return of.union(*(_types(one) for one in schema.get("anyOf", [])), {"integer"} if "number" in of else set())


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_values_of_another_type_are_refused(settings: ServeSettings) -> None:
    """Of every option, in a job's JSON and an avatar's: no boolean or text is read as a number."""
    inputs = [{"type": "video", "asset_id": "asset_" + "0" * 26}, {"type": "audio", "asset_id": "asset_" + "1" * 26}]
    refused = 0
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:

        def check(path: str, body: dict[str, Any], where: str) -> None:
            answer = client.post(path, json=body)
            assert answer.status_code == 422, (body, answer.text)
            assert answer.json()["errors"][0]["loc"].startswith(where), (body, answer.text)

        for name, schema in JobOptions.model_json_schema()["properties"].items():
            for kind in sorted(_VALUES.keys() - _types(schema)):
                check("/v1/jobs", {"input": inputs, "options": {name: _VALUES[kind]}}, f"options.{name}")
                refused += 1
        for name, schema in PrepareOptions.model_json_schema()["properties"].items():
            for kind in sorted(_VALUES.keys() - _types(schema)):
                check("/v1/avatars", {"asset_id": "asset_" + "0" * 26, name: _VALUES[kind]}, name)
        for change in ({"priority": "3"}, {"priority": True}, {"metadata": {"a": 1}}, {"output_file_name": 1}):
            check("/v1/jobs", {"input": inputs} | change, next(iter(change)))
        taken = client.post("/v1/jobs", json={"input": inputs, "options": {"guidance": 2, "fps": "25", "end": 3}})
        assert taken.json()["code"] == "no_such_asset"  # its options are right
    assert refused > 100
