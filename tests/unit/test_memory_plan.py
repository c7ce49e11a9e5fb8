"""Where buffers lie: those that live at once never overlap, and what nothing wrote is not read."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_program import chunk_program
from lsx.denoising.executor import io_of
from lsx.denoising.memory_plan import lifetimes, plan_memory
from lsx.denoising.program import Program
from lsx.engines.device import ALIGNMENT
from lsx.errors import EngineError
from tests.unit.test_program import MODEL, ToyEngine


def _program(options: SamplingOptions) -> Program:
    return chunk_program(MODEL, io_of({graph: ToyEngine(graph, MODEL) for graph in LOOP_GRAPHS}), options)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("interval", [None, 2, 3])
def test_buffers_that_live_at_once_never_overlap(steps: int, interval: int | None) -> None:
    program = _program(SamplingOptions(steps=steps, cache_interval=interval))
    plan, spans = plan_memory(program), lifetimes(program)
    assert all(offset % ALIGNMENT == 0 for offset in plan.offsets.values())
    for a, b in itertools.combinations(plan.offsets, 2):
        (first, last), (begin, end) = spans[a], spans[b]
        if begin <= last and first <= end:
            low, high = sorted((a, b), key=lambda name: plan.offsets[name])
            assert plan.offsets[low] + program.buffers[low].size <= plan.offsets[high], (a, b)
    assert plan.size >= max(plan.offsets[name] + program.buffers[name].size for name in plan.offsets)


def test_addresses_are_shared() -> None:
    program = _program(SamplingOptions(steps=12))
    apart = sum(buffer.size for buffer in program.buffers.values())
    assert plan_memory(program).size < 0.7 * apart


def test_a_read_of_what_nothing_wrote_is_an_error() -> None:
    program = _program(SamplingOptions(steps=2))
    with pytest.raises(EngineError, match=r"operation 0 reads .*, which nothing wrote"):
        lifetimes(replace(program, operations=program.operations[3:]))
