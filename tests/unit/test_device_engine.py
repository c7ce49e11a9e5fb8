"""A device engine alone: buffers of its own, kept for the same shapes, given back when asked."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.core.tensors import TensorSpec
from tests.simulated_device import SimulatedDevice, SimulatedEngine
from tests.unit.test_program import MODEL, ToyEngine


@pytest.fixture
def engine() -> SimulatedEngine:
    return SimulatedEngine(ToyEngine("vae_decoder", MODEL), SimulatedDevice(3))


def _feed(engine: SimulatedEngine, frames: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(frames)
    made = {}
    for name, spec in engine.inputs.items():
        shape = spec.shape_at({"F": frames, "b": 1})
        made[name] = rng.integers(0, 255, shape).astype(np.uint8) if spec.dtype == "uint8" else rng.normal(size=shape)
    return engine.cast(made)


def test_it_gives_what_the_engine_gives(engine: SimulatedEngine) -> None:
    for frames in (1, 2, 1):
        feed = _feed(engine, frames)
        wanted = engine.engine.run(feed)
        for name, array in engine.run(feed).items():
            assert np.array_equal(array, wanted[name])


def test_buffers_are_kept_and_given_back(engine: SimulatedEngine) -> None:
    free = engine.simulated.free_bytes()
    engine.run(_feed(engine, 2))
    held = engine.simulated.free_bytes()
    engine.run(_feed(engine, 2))
    assert engine.simulated.free_bytes() == held < free
    engine.release_buffers()
    assert engine.simulated.free_bytes() == free


def test_its_axes(engine: SimulatedEngine) -> None:
    assert engine.axes_of(_feed(engine, 2))["F"] == 2
    assert engine.own_axes({"F": 4, "zebra": 2}) == {"F": 4}
    assert np.dtype(engine.numpy_dtype(TensorSpec(name="x", dtype="bfloat16", shape=(1,)))).itemsize == 2


def test_it_is_timed_plain_and_captured(engine: SimulatedEngine) -> None:
    feed = _feed(engine, 1)
    assert engine.device_seconds(feed, captured=False) >= 0
    engine.device_seconds(feed)
    before = engine.simulated.launches
    engine.device_seconds(feed)
    assert engine.simulated.launches > before
