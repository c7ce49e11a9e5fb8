"""The CUDA executor on a simulated device: rings, events, captured graphs, failures. On a real one: tests/gpu."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.bench.workloads import graph_axes, graph_feed
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.denoising.activation_block import ActivationBlock
from lsx.denoising.chunk_program import PLAIN, ProgramInputs, chunk_program
from lsx.denoising.chunk_runner import ChunkRunner, Neighbour, PendingChunk, seeded_noise
from lsx.denoising.cuda_executor import CudaExecutor, executor_bytes
from lsx.denoising.executor import HostExecutor, Only, io_of
from lsx.denoising.executor_cache import CudaExecutorCache, executor_cache_for
from lsx.denoising.memory_plan import plan_memory
from lsx.engines.device_engine import Context
from lsx.engines.engine import Array
from lsx.errors import EngineError, NonFiniteOutput, OutOfDeviceMemory
from tests.simulated_device import SimulatedContext, SimulatedDevice, SimulatedEngine
from tests.unit.test_program import LARGE, MODEL, plain_loop, toy_engines, toy_inputs

OPTIONS = SamplingOptions(steps=4, cache_interval=3)


def _executor(
    seed: int = 0,
    *,
    model: ModelSpec = MODEL,
    options: SamplingOptions = OPTIONS,
    cuda_graph: bool = True,
    slots: int = 3,
    given: ProgramInputs = PLAIN,
) -> tuple[CudaExecutor, SimulatedDevice, dict[str, SimulatedEngine]]:
    device = SimulatedDevice(seed)
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines(model).items()}
    program = chunk_program(model, io_of(engines), options, given=given)
    contexts = _contexts(engines, device, {"b": options.guidance_batch, "F": model.vae_frames})
    return CudaExecutor(program, contexts, device, cuda_graph=cuda_graph, slots=slots), device, engines


def _contexts(
    engines: dict[str, SimulatedEngine], device: SimulatedDevice, axes: dict[str, int] | None = None
) -> dict[str, Context]:
    """One of each engine, in a block that they share."""
    block = ActivationBlock(engines.values(), device)
    contexts: dict[str, Context] = {n: e.context(axes or {"b": 2, "F": 16}) for n, e in engines.items()}
    for context in contexts.values():
        block.lend(context)
    return contexts


def _wanted(call: int, model: ModelSpec = MODEL, options: SamplingOptions = OPTIONS) -> dict[str, Array]:
    return plain_loop(toy_engines(model), toy_inputs(model, options, call), options)


def _pixels(executor: CudaExecutor, call: int) -> Array:
    return executor.submit(toy_inputs(MODEL, OPTIONS, call)).result(None).arrays["pixels"]


def _close(made: Array, wanted: Array) -> bool:
    return bool(np.abs(made - wanted).max() <= 1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_calls_in_any_order_of_events_give_the_loops_numbers(seed: int, cuda_graph: bool) -> None:
    executor, device, _ = _executor(seed, cuda_graph=cuda_graph)
    assert (executor.graph is not None) is cuda_graph
    assert set(executor.preparation) == ({"warm up", "capture"} if cuda_graph else {"warm up"})
    # The first results are taken late, so that their places in the ring have to be given to later calls.
    submissions = [executor.submit(toy_inputs(MODEL, OPTIONS, call)) for call in range(7)]
    assert executor.under_way == 3
    for call in (5, 0, 6, 1, 4, 3, 2):
        result = submissions[call].result(None)
        for name, array in _wanted(call).items():
            assert _close(result.arrays[name], array)
        assert set(result.seconds) == {"upload", "device", "download"}
    assert executor.under_way == 0
    assert device.launches == (7 if cuda_graph else 0)


@pytest.mark.parametrize("seed", range(5))
def test_chunks_that_go_on_from_each_other_give_the_host_s_numbers(seed: int) -> None:
    given = ProgramInputs(kept=True)
    executor, _, _ = _executor(seed, given=given)
    engines = toy_engines()
    host = HostExecutor(chunk_program(MODEL, io_of(engines), OPTIONS, given=given), engines)
    share = np.zeros(16, np.float32)
    share[:4] = (0.8, 0.6, 0.4, 0.2)
    made = []
    for one in (executor, host):
        runner = ChunkRunner(Only(one), MODEL, seeded_noise(0), OPTIONS.guidance, kept_steps=OPTIONS.steps)
        pending: list[PendingChunk] = []
        for call in range(3):
            inputs = toy_inputs(MODEL, OPTIONS, call)
            after = Neighbour(pending[-1], 12, share) if pending else None
            tokens = inputs["encoder_hidden_states"][-1]
            pending.append(runner.submit(inputs["faces"], tokens, call, after=after))
        made.append([runner.result(chunk) for chunk in pending])
    for on_device, on_host in zip(*made, strict=True):
        assert all(_close(on_device[name], on_host[name]) for name in ("pixels", "latents_out"))


def test_the_vae_in_parts() -> None:
    options = SamplingOptions(steps=1, cache_interval=None)
    executor, _, _ = _executor(model=LARGE, options=options)
    result = executor.submit(toy_inputs(LARGE, options)).result(None).arrays
    for name, array in _wanted(0, LARGE, options).items():
        assert _close(result[name], array)


def test_graph_and_plain_enqueues_are_the_same_bit_for_bit() -> None:
    results = []
    for cuda_graph in (True, False):
        executor, _, _ = _executor(cuda_graph=cuda_graph)
        results.append(executor.submit(toy_inputs(MODEL, OPTIONS)).result(None).arrays["pixels"])
    assert np.array_equal(results[0], results[1])


def test_a_launch_follows_changed_inputs_and_guidance() -> None:
    executor, _, _ = _executor()
    for guidance in (1.5, 3.0):
        options = SamplingOptions(steps=4, cache_interval=3, guidance=guidance)
        result = executor.submit(toy_inputs(MODEL, options)).result(None)
        assert _close(result.arrays["pixels"], _wanted(0, options=options)["pixels"])


def test_a_capture_that_fails_falls_back_with_a_warning() -> None:
    device = SimulatedDevice()
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    engines["step"].fails_in_capture = True
    contexts = _contexts(engines, device)
    with pytest.warns(RuntimeWarning, match="not while capturing"):
        executor = CudaExecutor(chunk_program(MODEL, io_of(engines), OPTIONS), contexts, device)
    assert executor.graph is None
    assert _close(_pixels(executor, 3), _wanted(3)["pixels"])


def test_what_a_failed_submit_left_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    executor, device, _ = _executor(cuda_graph=False)

    def fail(*_: object) -> None:
        raise EngineError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedContext, "enqueue", fail)
        with pytest.raises(EngineError, match="broken"):
            executor.submit(toy_inputs(MODEL, OPTIONS, 1))
    assert not any(device.queues.values())
    assert len(executor._free) == 3
    assert _close(_pixels(executor, 2), _wanted(2)["pixels"])


def test_an_engine_that_cannot_be_captured_is_named() -> None:
    device = SimulatedDevice()
    engines = {n: SimulatedEngine(e, device, capturable=n != "unet_shallow") for n, e in toy_engines().items()}
    contexts = _contexts(engines, device)
    with pytest.warns(RuntimeWarning, match="unet_shallow cannot be captured"):
        executor = CudaExecutor(chunk_program(MODEL, io_of(engines), OPTIONS), contexts, device)
    assert executor.graph is None


def test_a_result_goes_to_its_owner_alone_and_once() -> None:
    executor, _, _ = _executor(slots=1)
    first, second = object(), object()
    mine = executor.submit(toy_inputs(MODEL, OPTIONS, 1), first)
    theirs = executor.submit(toy_inputs(MODEL, OPTIONS, 2), second)  # takes the only slot; the first result is kept
    with pytest.raises(EngineError, match="another run's result"):
        theirs.result(first)
    assert _close(mine.result(first).arrays["pixels"], _wanted(1)["pixels"])
    with pytest.raises(EngineError, match="asked for twice"):
        mine.result(first)
    assert _close(theirs.result(second).arrays["pixels"], _wanted(2)["pixels"])


def test_a_slot_that_holds_another_call_gives_nothing() -> None:
    executor, _, _ = _executor()
    submission = executor.submit(toy_inputs(MODEL, OPTIONS))
    other = executor.submit(toy_inputs(MODEL, OPTIONS, 1))
    executor._slots[0].submission = other  # a planted mix-up
    with pytest.raises(EngineError, match="another run's chunk"):
        submission.result(None)


def test_what_was_abandoned_is_not_copied_and_its_slot_comes_back() -> None:
    executor, _, _ = _executor(slots=1)
    lost = executor.submit(toy_inputs(MODEL, OPTIONS, 1))
    lost.abandoned = True
    assert _close(_pixels(executor, 2), _wanted(2)["pixels"])
    with pytest.raises(EngineError, match="given up"):
        lost.result(None)


def test_closing_keeps_the_results_of_calls_under_way() -> None:
    executor, device, _ = _executor()
    submission = executor.submit(toy_inputs(MODEL, OPTIONS, 1))
    executor.close()
    assert len(device.blocks) == 1
    assert _close(submission.result(None).arrays["pixels"], _wanted(1)["pixels"])
    with pytest.raises(EngineError, match="closed"):
        executor.submit(toy_inputs(MODEL, OPTIONS))


def test_nothing_is_allocated_by_a_call_and_all_is_freed() -> None:
    executor, device, _ = _executor()
    before = dict(device.blocks)
    for call in range(20):
        executor.submit(toy_inputs(MODEL, OPTIONS, call)).result(None)
    assert device.blocks.keys() == before.keys()
    executor.close()
    assert device.discarded == len(device.queues) + len(device.recorded)
    assert len(device.blocks) == 1  # the activation memory, which is the engines'


def test_too_little_memory_is_said_before_anything_starts() -> None:
    program = chunk_program(MODEL, io_of(toy_engines()), OPTIONS)
    needed, _ = executor_bytes(program, plan_memory(program))
    device = SimulatedDevice(memory=needed)
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    contexts = _contexts(engines, device)
    before = device.free_bytes()
    with pytest.raises(OutOfDeviceMemory, match="MiB are free"):
        CudaExecutor(program, contexts, device)
    assert device.free_bytes() == before


def test_the_tripwire() -> None:
    executor, _, _ = _executor()
    runner = ChunkRunner(Only(executor), MODEL, seeded_noise(0))
    tokens = np.zeros((16, MODEL.tokens, MODEL.audio_dim), np.float32)
    tokens[:3] = np.nan
    pending = runner.submit(np.zeros((16, 64, 64, 3), np.uint8), tokens, 0)
    with pytest.raises(NonFiniteOutput, match="3 of 16"):
        runner.result(pending)
    runner.result(runner.submit(np.zeros((16, 64, 64, 3), np.uint8), np.zeros_like(tokens), 1))


def test_infer_on_a_device() -> None:
    device = SimulatedDevice()
    toy = toy_engines()["vae_decoder"]
    engine = SimulatedEngine(toy, device)
    for frames in (1, 3, 3):
        feed: dict[str, Array] = {
            "latents": np.full((1, 4, frames, 8, 8), 2, np.float32),
            "faces": np.full((frames, 64, 64, 3), 7, np.uint8),
        }
        assert np.array_equal(engine.infer(feed)["pixels"], toy.infer(feed)["pixels"])
    with pytest.raises(EngineError, match="latents"):
        engine.infer({})
    engine.close()
    assert not device.blocks


def test_executors_are_kept_by_schedule_and_batch() -> None:
    device = SimulatedDevice()
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    executors = executor_cache_for(engines, MODEL)
    assert isinstance(executors, CudaExecutorCache)
    first = executors.get(OPTIONS)
    assert executors.get(SamplingOptions(steps=4, cache_interval=3, guidance=3.0, seed=5)) is first
    assert executors.get(SamplingOptions(steps=5, cache_interval=3)) is not first
    assert executors.get(OPTIONS) is first
    made = {name: engine.contexts for name, engine in engines.items()}
    assert set(made.values()) == {1}
    second = executors.get(ALONE)
    assert executors.get(OPTIONS) is first  # guidance off and on again drops nothing
    assert executors.get(ALONE) is second
    # The VAE's lengths are the same in both.
    assert {name for name, engine in engines.items() if engine.contexts == 2} == {"unet", "unet_shallow", "step"}
    executors.close()
    assert not device.blocks
    assert all(engine.contexts == 0 for engine in engines.values())


ALONE = SamplingOptions(steps=4, cache_interval=3, guidance=1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_what_was_captured_stays_right_beside_other_lengths(seed: int, cuda_graph: bool) -> None:
    """Capture A, capture B, replay A: with guidance and without, over one activation block that never moves."""
    device = SimulatedDevice(seed)
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    executors = executor_cache_for(engines, MODEL, cuda_graph=cuda_graph)
    plain = executor_cache_for(engines, MODEL, cuda_graph=False, beside=executors)
    assert isinstance(executors, CudaExecutorCache)
    assert isinstance(plain, CudaExecutorCache)
    order = [(executors, OPTIONS), (executors, ALONE), (plain, OPTIONS), (executors, OPTIONS), (executors, ALONE)]
    activation = set[int]()
    for call, (some, options) in enumerate(order):
        executor = some.get(options)
        pixels = executor.submit(toy_inputs(MODEL, options, call)).result(None).arrays["pixels"]
        assert _close(pixels, _wanted(call, options=options)["pixels"])
        # An engine's own run works elsewhere, in a context of its own.
        feed = graph_feed(engines["unet"], graph_axes(engines.values(), MODEL, options))
        engines["unet"].run(feed)
        activation |= {lent._memory.address for lent in (executors.activation, plain.activation) if lent._memory}
    assert len(activation) == 1
    engines["unet"].close()
    plain.close()
    executors.close()
    assert not device.blocks


def test_a_schedule_that_does_not_fit_takes_the_place_of_kept_ones() -> None:
    """What each costs is what the device had less; and the last one is refused only where it does not fit alone."""
    device = SimulatedDevice()
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    executors = executor_cache_for(engines, MODEL)
    executors.get(OPTIONS)
    before = device.free_bytes()
    other = SamplingOptions(steps=5, cache_interval=3)
    executors.get(other)
    (first, second), (_, cost) = executors.costs(), executors.costs().values()
    assert cost <= before - device.free_bytes() < 2 * cost  # pinned memory counts here, too
    assert (first[0], second[0]) == (4, 5)
    device.capacity -= device.free_bytes()
    third = SamplingOptions(steps=6, cache_interval=3)
    executors.get(third)
    assert third.steps in [key[0] for key in executors.costs()]
    assert first not in executors.costs()
    device.capacity = 0
    with pytest.raises(OutOfDeviceMemory):
        executors.get(SamplingOptions(steps=7, cache_interval=3))
    assert not executors.costs()
    executors.close()
    assert not device.blocks


def test_engines_are_told_when_they_are_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first run and before the capture, so that what was compiled is kept whatever happens then."""
    told: list[str] = []
    monkeypatch.setattr(SimulatedEngine, "warmed_up", lambda engine, _: told.append(engine.graph))
    capture = SimulatedDevice.capture

    def capturing(device: SimulatedDevice, *arguments: object) -> object:
        told.append("capture")
        return capture(device, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SimulatedDevice, "capture", capturing)
    executor, _, _ = _executor()
    assert sorted(told[:-1]) == sorted(executor.program.graphs())
    assert told[-1] == "capture"
