"""The API against its own description: whatever the schema allows is answered as the schema says, and never with 500."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings as hypothesis_settings

from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings


@pytest.fixture
def described(settings: ServeSettings) -> Iterator[object]:
    app = create_app(settings)
    yield schemathesis.openapi.from_asgi("/openapi.json", app, base_url="http://127.0.0.1:8000")
    app.state.engine.dispose()


schema = schemathesis.pytest.from_fixture("described").exclude(path_regex="/events$")


@schema.parametrize()
@hypothesis_settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_every_answer_is_described(case: schemathesis.Case) -> None:
    answer = case.call(headers={"Host": "127.0.0.1:8000"})
    case.validate_response(answer)
