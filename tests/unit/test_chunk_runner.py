"""A run's chunks: noise by name, overflow done again in the fallback, results of this run alone."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import pytest

from lsx.core.cancel import CancelToken
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.core.threaded_stages import Stopped
from lsx.denoising.chunk_program import PLAIN, ProgramInputs, chunk_program
from lsx.denoising.chunk_runner import (
    ChunkRunner,
    Neighbour,
    audio_batch,
    kept_latents,
    repeated_latents,
    seeded_noise,
)
from lsx.denoising.executor import Executor, HostExecutor, Lender, Only, io_of
from lsx.denoising.executor_cache import executor_cache_for
from lsx.errors import EngineError, NonFiniteOutput, OutOfDeviceMemory
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


def _keeping() -> HostExecutor:
    engines = {graph: ToyEngine(graph, MODEL) for graph in LOOP_GRAPHS}
    return HostExecutor(chunk_program(MODEL, io_of(engines), OPTIONS, given=ProgramInputs(kept=True)), engines)


def test_latents_as_seen_from_a_later_frame() -> None:
    steps, share = named_noise("steps", (3, 4, 16, 2, 2), 0), np.zeros(16, np.float32)
    share[:2] = (0.75, 0.25)
    before = ChunkRunner(Only(_keeping()), MODEL, seeded_noise(0), kept_steps=2).submit(FACES, TOKENS, 0)
    kept = kept_latents(steps, Neighbour(before, 12, share))
    assert kept.shape == (3, 5, 16, 2, 2)
    assert np.array_equal(kept[:, :4, :4], steps[:, :, 12:])
    assert not kept[:, :, 4:].any()
    assert (kept[:, 4, 0] == 0.75).all()
    assert (kept[:, 4, 1] == 0.25).all()


def test_a_chunk_goes_on_from_the_one_before() -> None:
    runner = ChunkRunner(Only(_keeping()), MODEL, seeded_noise(0), kept_steps=2)
    other = np.full_like(TOKENS, -1)
    first = runner.submit(FACES, TOKENS, 0)
    share = np.zeros(16, np.float32)
    share[:4] = (1, 0.75, 0.5, 0.25)
    second = runner.submit(FACES, other, 0, after=Neighbour(first, 12, share))
    alone = runner.submit(FACES, other, 0)
    a, b, c = (runner.result(pending)["latents_out"][0] for pending in (first, second, alone))
    # the toy U-Net takes each frame by itself: what a frame has of both is what its latents have at every step
    assert np.abs(b[:, 0] - a[:, 12]).max() < 1e-6
    assert np.abs(a[:, 12] - c[:, 0]).max() > 0.01
    for frame in (1, 2, 3):
        low, high = np.minimum(a[:, 12 + frame], c[:, frame]), np.maximum(a[:, 12 + frame], c[:, frame])
        assert ((b[:, frame] >= low - 1e-6) & (b[:, frame] <= high + 1e-6)).all()
    assert np.array_equal(b[:, 4:], c[:, 4:])


def test_a_neighbour_that_failed_fails_both() -> None:
    runner = ChunkRunner(Only(_keeping()), MODEL, seeded_noise(0), kept_steps=2)
    broken = runner.submit(FACES, np.full_like(TOKENS, np.nan), 0)
    with pytest.raises(NonFiniteOutput):
        runner.submit(FACES, TOKENS, 1, after=Neighbour(broken, 12, np.zeros(16, np.float32)))
    with pytest.raises(NonFiniteOutput):
        runner.result(broken)


class _TooLarge(Lender):
    """Has memory for programs that keep nothing."""

    def __init__(self, small: Lender) -> None:
        self._small = small

    def lent(self, stop: CancelToken, given: ProgramInputs = PLAIN) -> AbstractContextManager[Executor]:
        if given.kept:
            raise OutOfDeviceMemory("the loop needs 1 MiB more")
        return self._small.lent(stop, given)


def test_without_the_memory_nothing_is_kept(executor: HostExecutor) -> None:
    runner = ChunkRunner(_TooLarge(Only(executor)), MODEL, seeded_noise(0), kept_steps=2)
    kept = [runner.keeps]
    first = runner.submit(FACES, TOKENS, 0)
    assert [*kept, runner.keeps] == [True, False]
    second = runner.submit(FACES, TOKENS, 0, after=Neighbour(first, 12, np.ones(16, np.float32)))
    plain = ChunkRunner(Only(executor), MODEL, seeded_noise(0))
    wanted = plain.result(plain.submit(FACES, TOKENS, 0))["pixels"]
    assert all(np.array_equal(runner.result(pending)["pixels"], wanted) for pending in (first, second))


def test_a_run_that_asks_for_anothers_chunk_gets_nothing() -> None:
    executors = executor_cache_for({g: ToyEngine(g, MODEL) for g in LOOP_GRAPHS}, MODEL)
    lender = executors.lender(SamplingOptions(steps=1))
    first, second = (ChunkRunner(lender, MODEL, seeded_noise(seed)) for seed in (0, 1))
    pending = first.submit(FACES, TOKENS, 0)
    with pytest.raises(EngineError, match="did not submit"):
        second.result(pending)
    assert first.result(pending)["pixels"].shape == (16, 64, 64, 3)
