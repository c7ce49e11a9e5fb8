"""A token of several runs, when Python's collector ends one of them at the worst moment."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lsx import CancelToken


class _Dropped:
    """Holds a subscription and itself, so that only the collector ends it."""

    def __init__(self, token: CancelToken) -> None:
        self.me, self.open = self, ExitStack()
        self.open.enter_context(token.subscribed(lambda: None))

    def __del__(self) -> None:
        self.open.close()


@pytest.fixture
def not_collected() -> Iterator[None]:
    """No collection until the test lets the next new object bring one."""
    before = gc.get_threshold()
    gc.disable()
    yield
    gc.set_threshold(*before)
    gc.enable()


@pytest.mark.usefixtures("not_collected")
def test_the_collector_may_end_a_dropped_run_while_a_token_is_cancelled() -> None:
    """Wherever in `cancel` the object is made that brings the collection."""
    told: list[int] = []

    def cancel() -> None:
        for later in range(12):
            gc.disable()
            token = CancelToken()
            with token.subscribed(lambda: told.append(1)):
                _Dropped(token)
                # Those that Python keeps to use again bring no collection.
                taken: list[Any] = [([], {}) for _ in range(300)]
                gc.set_threshold(gc.get_count()[0] + later)
                gc.enable()
                token.cancel()
                del taken

    thread = threading.Thread(target=cancel, daemon=True)
    thread.start()
    thread.join(20)
    assert len(told) == 12
