"""Event streams: the places of an owner's are free again however a stream ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lsx.serving.job_events import JobEvents
from lsx.serving.job_routes import _JobStream
from lsx.serving.problems import ApiProblem
from lsx.serving.schemas import Job, JobUrls


def _job() -> Job:
    urls = JobUrls(get="", cancel="", events="", output="")
    return Job.model_construct(id="job_1", status="PENDING", urls=urls)


async def _gone_at_once(watched: JobEvents, *, at: str) -> None:
    """A stream whose client goes before anything is sent, or while the head is."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_message: dict[str, Any]) -> None:
        if at == "head":
            raise OSError("the client is gone")
        await asyncio.Event().wait()

    stream = _JobStream(watched, "owner", _job())
    scope: dict[str, Any] = {"type": "http", "method": "GET"}
    try:
        await stream(scope, receive, send)  # type: ignore[arg-type]
    except OSError:
        assert at == "head"


@pytest.mark.parametrize("at", ["start", "head"])
def test_a_client_that_goes_before_the_stream_begins(at: str) -> None:
    watched = JobEvents(lambda _: {}, most=1)

    async def many() -> None:
        for _ in range(3):
            await _gone_at_once(watched, at=at)

    asyncio.run(many())
    assert not watched._owners
    assert not watched._watched


def test_one_stream_too_many() -> None:
    watched = JobEvents(lambda _: {}, most=1)

    async def enter_and_leave() -> None:
        watched.enter("owner", "job_1")
        with pytest.raises(ApiProblem, match="at most 1"):
            _JobStream(watched, "owner", _job())
        watched.enter("other", "job_1")
        watched.leave("owner", "job_1")
        watched.enter("owner", "job_1")
        assert watched._watched == {"job_1": 2}

    asyncio.run(enter_and_leave())
