"""A small `make torture`: kills of every process in the midst of jobs, and none lost, none made twice."""

from __future__ import annotations

from lsx.serving.settings import ServeSettings
from tests.torture.harness import Table
from tests.torture.kills import Storm, kills


def test_kills_in_the_midst_of_jobs(settings: ServeSettings) -> None:
    table = Table()
    kills(table, settings.model_copy(update={"port": 0}), Storm(jobs=12, kills=5, pause=1.0))
    assert table.fine, table.rows
