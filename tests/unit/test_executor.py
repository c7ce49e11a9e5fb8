"""HostExecutor and its submissions: results go to their owner once, steps are told, stopping is heeded."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.core.cancel import CancelToken
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.core.threaded_stages import Stopped
from lsx.denoising.chunk_program import chunk_program
from lsx.denoising.executor import HostExecutor, Only, io_of, vae_frames_of
from lsx.errors import EngineError
from tests.unit.test_program import LARGE, MODEL, ToyEngine, toy_inputs

OPTIONS = SamplingOptions(steps=5, cache_interval=2)


@pytest.fixture
def executor() -> HostExecutor:
    engines = {graph: ToyEngine(graph, MODEL) for graph in LOOP_GRAPHS}
    return HostExecutor(chunk_program(MODEL, io_of(engines), OPTIONS), engines)


def test_steps_are_told_in_order(executor: HostExecutor) -> None:
    seen: list[int] = []
    executor.submit(toy_inputs(MODEL, OPTIONS), on_step=seen.append)
    assert seen == [1, 2, 3, 4, 5]


def test_a_result_is_its_owners_and_given_once(executor: HostExecutor) -> None:
    mine, theirs = object(), object()
    submission = executor.submit(toy_inputs(MODEL, OPTIONS), mine)
    with pytest.raises(EngineError, match="another run's result"):
        submission.result(theirs)
    pixels = submission.result(mine).arrays["pixels"]
    assert np.isfinite(pixels).all()
    with pytest.raises(EngineError, match="asked for twice"):
        submission.result(mine)


def test_results_are_copies(executor: HostExecutor) -> None:
    first = executor.submit(toy_inputs(MODEL, OPTIONS)).result(None).arrays["pixels"]
    before = first.copy()
    executor.submit(toy_inputs(MODEL, OPTIONS, 1)).result(None)
    assert np.array_equal(first, before)


def test_a_cancelled_token_stops_between_operations(executor: HostExecutor) -> None:
    stop = CancelToken()
    seen: list[int] = []

    def on_step(step: int) -> None:
        seen.append(step)
        stop.cancel()

    with pytest.raises(Stopped):
        executor.submit(toy_inputs(MODEL, OPTIONS), None, stop, on_step)
    assert seen == [1]


def test_wrong_shapes_and_a_closed_one(executor: HostExecutor) -> None:
    inputs = toy_inputs(MODEL, OPTIONS)
    with pytest.raises(EngineError, match=r"faces is \[15, .*; the loop takes \[16"):
        executor.submit(inputs | {"faces": inputs["faces"][:15]})
    executor.close()
    with pytest.raises(EngineError, match="closed"):
        executor.submit(inputs)


def test_only_lends_the_same_one(executor: HostExecutor) -> None:
    with Only(executor).lent(CancelToken()) as lent:
        assert lent is executor


def test_the_vae_takes_fewer_frames_on_a_host() -> None:
    engines = [ToyEngine("vae_encoder", LARGE)]
    assert vae_frames_of(engines, LARGE) == LARGE.host_vae_frames <= LARGE.vae_frames
