"""The bench's measuring: turns, budgets, memory that grows, stages and engines on a device, options."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.bench.options import BenchOptions
from lsx.bench.runs import memory_growth
from lsx.bench.stages import chunk_stages
from lsx.bench.timing import Budget, measure, noise_note, rows_of
from lsx.bench.workloads import CAPTURED, EAGER, graph_axes, graph_feed, graph_works
from lsx.cli.bench import parse_duration
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.denoising.executor import vae_frames_of
from lsx.errors import UsageError
from lsx.verify.candidate import AsFloat32
from tests.simulated_device import SimulatedDevice, SimulatedEngine
from tests.unit.test_program import MODEL, toy_engines


def test_contenders_take_turns_and_the_first_run_stands_apart() -> None:
    order: list[str] = []
    clock = {"a": iter([9.0, 1, 1, 1]), "b": iter([8.0, 2, 3, 4])}

    def work(name: str) -> float:
        order.append(name)
        return next(clock[name])

    found = measure({n: (lambda n=n: work(n)) for n in "ab"}, Budget(repeat=3))  # type: ignore[misc]
    assert "".join(order) == "ab" + "ababab"
    assert found == {"a": [9, 1, 1, 1], "b": [8, 2, 3, 4]}
    first, second = rows_of("graphs", "unet", found, "b")
    assert first.seconds.first == 9
    assert first.seconds.median == 1
    assert first.ratio is not None
    assert first.ratio.median == 3
    assert (first.ratio.low, first.ratio.high) == (2.5, 3.5)
    assert second.ratio is None
    assert "unet on b" in str(noise_note([first, second]))
    assert "unet on a" not in str(noise_note([first, second]))


def test_a_budget_bounds_the_rounds() -> None:
    budget = Budget(seconds=10, least=2, most=5)
    assert budget.more(1, 100, 100)
    assert not budget.more(2, 6, 5)
    assert budget.more(2, 4, 5)
    assert not budget.more(5, 0.1, 0)
    assert not Budget(repeat=1).more(1, 0, 0)


def test_memory_that_grows_and_memory_that_does_not() -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, 100)
    flat = (10**8 + noise).tolist()
    assert abs(memory_growth([10**7, 5 * 10**7, *flat])) < 1e-3  # the warm-up is left out
    leaking = (10**8 + 10**5 * np.arange(100)).tolist()
    assert memory_growth(leaking) == pytest.approx(0.066, abs=0.01)
    assert memory_growth([]) == 0


def test_stages_and_peaks_on_a_device() -> None:
    """On a device that says one second for everything: kinds times their count, and the rest is waited for."""
    device = SimulatedDevice()
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    options = SamplingOptions(steps=4, cache_interval=3)
    found = chunk_stages(engines, MODEL, options, "simulated", 20.0)
    assert {s.name: s.seconds for s in found.stages} == {
        "upload": 1,
        "vae_encoder": 1,
        "step": 5,
        "unet": 2,
        "unet_shallow": 2,
        "vae_decoder": 1,
        "download": 1,
        "wait": 7,
    }
    assert found.device_busy == 11 / 20
    assert device.launches == 5 * 4  # each graph five times, and captured after the first
    feed = graph_feed(engines["unet"], graph_axes(engines.values(), MODEL, options))
    assert engines["unet"].device_seconds(feed) == 1
    assert all(np.array_equal(a, toy_engines()["unet"].run(feed)[n]) for n, a in engines["unet"].run(feed).items())
    engines["unet"].close()
    assert not device.blocks


def test_the_vae_takes_a_gpus_frames_where_any_engine_is_on_one() -> None:
    """Plans have that length alone: verify's loop, which runs over the host's memory, has to use it, too."""
    toy, model = toy_engines(), ModelSpec(version="test", resolution=256)
    assert vae_frames_of(toy.values(), model) == 1
    on_device = SimulatedEngine(toy["vae_decoder"], SimulatedDevice())
    assert vae_frames_of([toy["unet"], on_device], model) == 16
    assert vae_frames_of([toy["unet"], AsFloat32(on_device)], model) == 16


def test_eager_is_measured_eager_and_captured_is_named_so() -> None:
    device = SimulatedDevice()
    engine = SimulatedEngine(toy_engines()["unet"], device)
    axes = graph_axes([engine], MODEL, SamplingOptions())
    works = graph_works(EAGER, engine, axes)
    assert list(works) == [EAGER, CAPTURED]
    for _ in range(3):
        works[EAGER]()
    assert device.launches == 0
    for _ in range(3):
        works[CAPTURED]()
    assert device.launches == 2  # the first warms up
    works[EAGER]()
    assert device.launches == 2
    assert list(graph_works("tensorrt", engine, axes)) == ["tensorrt"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1.5 m", 90), ("45", 45)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_bad_options() -> None:
    with pytest.raises(UsageError, match="give a time such as"):
        parse_duration("soon")
    with pytest.raises(UsageError, match="no calls; choose from graphs, chunk, cold"):
        BenchOptions(sections=("calls",))
    with pytest.raises(UsageError, match="repeat is 0"):
        BenchOptions(repeat=0)
