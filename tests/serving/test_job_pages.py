"""Pages of jobs of one status, among many that have another: each job once, and few questions to the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from lsx.serving.database import JOBS, engine_for
from lsx.serving.gpu_queue import Owner
from lsx.serving.job_book import JobBook
from lsx.serving.schemas import Job
from lsx.serving.settings import ServeSettings

_OWNER = Owner("local", 100)
_COUNT, _EVERY = 1200, 400


def _entered(engine: sa.Engine) -> list[str]:
    """Ids of jobs whose workflows are gone, the latest first; three each were made in one millisecond."""
    ids = [f"job_{number:026d}" for number in range(_COUNT)]
    same = {"owner": "local", "fingerprint": "", "request": {"input": []}, "priority": 5, "attempts": 1}
    rows = [same | {"id": name, "created_ms": 1000 + number // 3} for number, name in enumerate(ids)]
    with engine.begin() as connection:
        connection.execute(JOBS.insert(), rows)
    return ids[::-1]


def test_few_of_many(settings: ServeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for(str(settings.database))
    ids, asked, told = _entered(engine), [], JobBook.jobs

    def some_failed(self: JobBook, rows: Sequence[Any]) -> list[Job]:
        failed = {"status": "FAILED"}
        return [job.model_copy(update={} if int(job.id[4:]) % _EVERY else failed) for job in told(self, rows)]

    monkeypatch.setattr(JobBook, "jobs", some_failed)
    sa.event.listen(engine, "before_cursor_execute", lambda *_: asked.append(1))
    book, seen, cursor = JobBook(engine, settings), [], None
    for _ in range(_COUNT // _EVERY):
        asked.clear()
        page = book.page(_OWNER, "FAILED", 1, cursor)
        assert len(asked) < 20
        seen += [job.id for job in page.data]
        cursor = page.next_cursor
    assert (seen, cursor) == ([name for name in ids if int(name[4:]) % _EVERY == 0], None)
    for status, limit in (("CANCELED", 100), (None, 97)):
        seen, cursor = [], None
        while cursor is not None or not seen:
            page = book.page(_OWNER, status, limit, cursor)  # type: ignore[arg-type]
            seen += [job.id for job in page.data]
            cursor = page.next_cursor
        assert seen == [name for name in ids if status is None or int(name[4:]) % _EVERY]
    engine.dispose()
