"""A run's chunks: noise by name, overflow done again in the fallback, results of this run alone."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.core.threaded_stages import Stopped
from lsx.denoising.chunk_runner import ChunkRunner, audio_batch, repeated_latents, seeded_noise
from lsx.denoising.executor import HostExecutor, Only, io_of
from lsx.denoising.program import chunk_program
from lsx.errors import EngineError
from tests.unit.test_program import MODEL, ToyEngine

OPTIONS = SamplingOptions(steps=2)
FACES = np.full((16, 64, 64, 3), 90, np.uint8)
TOKENS = np.ones((16, MODEL.tokens, MODEL.audio_dim), np.float32)


@pytest.fixture
def executor() -> HostExecutor:
    engines = {graph: ToyEngine(graph, MODEL) for graph in LOOP_GRAPHS}
    return HostExecutor(chunk_program(MODEL, io_of(engines), OPTIONS), engines)


def test_noise_depends_on_seed_and_name_alone() -> None:
    a, b = seeded_noise(3), seeded_noise(4)
    assert np.array_equal(a("masked.7", (2, 4)), named_noise("noise.masked.7", (2, 4), 3))
    assert not np.array_equal(a("masked.7", (2, 4)), a("masked.8", (2, 4)))
    assert not np.array_equal(a("masked.7", (2, 4)), b("masked.7", (2, 4)))


def test_the_unconditional_half_comes_first() -> None:
    pair = audio_batch(TOKENS, 2)
    assert pair.shape == (2, *TOKENS.shape)
    assert not pair[0].any()
    assert np.array_equal(pair[1], TOKENS)
    assert audio_batch(TOKENS, 1).shape == (1, *TOKENS.shape)
    assert repeated_latents(np.ones((1, 4, 1, 2, 2), np.float32), 16).shape == (1, 4, 16, 2, 2)


def test_what_the_noise_source_is_asked(executor: HostExecutor) -> None:
    asked: list[str] = []

    def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
        asked.append(name)
        return np.zeros(shape, np.float32)

    runner = ChunkRunner(Only(executor), MODEL, noise)
    runner.result(runner.submit(FACES, TOKENS, 5))
    assert asked == ["latents", "masked.5", "reference.5"]
    assert runner.position == (5, 2)
    with pytest.raises(EngineError, match=r"noise source gave \[1\] for latents"):
        ChunkRunner(Only(executor), MODEL, lambda *_: np.zeros(1, np.float32))


def test_anothers_chunk_and_a_stopped_run(executor: HostExecutor) -> None:
    first, second = (ChunkRunner(Only(executor), MODEL, seeded_noise(0)) for _ in range(2))
    pending = first.submit(FACES, TOKENS, 0)
    with pytest.raises(EngineError, match="did not submit"):
        second.result(pending)
    first.stop()
    with pytest.raises(Stopped):
        first.result(pending)
