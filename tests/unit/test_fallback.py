"""The fallback's engines are loaded once, by whoever needs them first, and never after closing."""

from __future__ import annotations

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.denoising.executor_cache import executor_cache_for
from lsx.denoising.fallback import Fallback
from lsx.engines.engine import Engine
from tests.unit.test_program import MODEL, ToyEngine


def test_it_is_loaded_once() -> None:
    loaded: list[int] = []

    def load() -> dict[str, Engine]:
        loaded.append(1)
        return {graph: ToyEngine(graph, MODEL) for graph in LOOP_GRAPHS}

    fallback = Fallback(load, lambda engines: executor_cache_for(engines, MODEL))
    assert not loaded
    assert fallback.lender(SamplingOptions(steps=1)) is not None
    assert fallback.lender(SamplingOptions(steps=2)) is not None
    assert loaded == [1]
    fallback.close()


def test_without_one_there_is_no_lender() -> None:
    fallback = Fallback(None, lambda engines: executor_cache_for(engines, MODEL))
    assert fallback.lender(SamplingOptions(steps=1)) is None
    fallback.close()


def test_nothing_is_loaded_after_closing() -> None:
    fallback = Fallback(lambda: {}, lambda engines: executor_cache_for(engines, MODEL))
    fallback.close()
    assert fallback.lender(SamplingOptions(steps=1)) is None
