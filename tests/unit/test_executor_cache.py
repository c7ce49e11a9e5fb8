"""Schedules kept by what they depend on: another seed or scale is the same one, another batch is not."""

from __future__ import annotations

import threading

import pytest

from lsx.core.cancel import CancelToken
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.core.threaded_stages import Stopped
from lsx.denoising.executor_cache import ExecutorCache, HostExecutorCache, ScheduleKey, executor_cache_for
from tests.unit.test_program import MODEL, ToyEngine


@pytest.fixture
def cache() -> ExecutorCache:
    return executor_cache_for({graph: ToyEngine(graph, MODEL) for graph in LOOP_GRAPHS}, MODEL)


def test_the_host_keeps_one(cache: ExecutorCache) -> None:
    assert isinstance(cache, HostExecutorCache)
    first = cache.get(SamplingOptions(steps=3))
    assert cache.get(SamplingOptions(steps=3, seed=9, guidance=2.5)) is first
    assert list(cache.costs()) == [ScheduleKey(steps=3, guidance_batch=2, cache_interval=3, sampler="ddim")]
    assert cache.get(SamplingOptions(steps=3, guidance=1)) is not first
    assert len(cache.costs()) == 1


def test_a_waiting_run_can_be_stopped(cache: ExecutorCache) -> None:
    options, stop, waiting = SamplingOptions(steps=1), CancelToken(), threading.Event()
    seen: list[type[BaseException]] = []

    def other() -> None:
        waiting.set()
        try:
            with cache.lent(options, stop):
                seen.append(AssertionError)
        except Stopped as error:
            seen.append(type(error))

    with cache.lent(options, CancelToken()):
        thread = threading.Thread(target=other)
        thread.start()
        waiting.wait()
        stop.cancel()
        thread.join()
    assert seen == [Stopped]
