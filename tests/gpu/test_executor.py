"""The CUDA executor on a real GPU, with every backend that runs there, against the same program on the host."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import psutil
import pytest

from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.denoising.activation_block import ActivationBlock
from lsx.denoising.chunk_program import PLAIN, ProgramInputs, chunk_program
from lsx.denoising.chunk_runner import ChunkRunner, audio_batch, repeated_latents, seeded_noise
from lsx.denoising.cuda_executor import CudaExecutor
from lsx.denoising.executor import HostExecutor, Only, Submission, io_of
from lsx.engines.cuda_device import CudaDevice
from lsx.engines.device import Memory, Stream
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.engine import Array
from lsx.engines.loading import load_engine
from lsx.errors import NonFiniteOutput, OutOfDeviceMemory
from lsx.faces.alignment import Face
from lsx.runtime.lipsync import LipSync
from tests.seeded_inputs import landmarks, picture, waveform

# onnxruntime is not captured, and nothing here was verified.
pytestmark = pytest.mark.filterwarnings("ignore:no CUDA graph", "ignore:.*is not verified")

OPTIONS = SamplingOptions(steps=4, cache_interval=3)
Loaded = tuple[Bundle, dict[str, DeviceEngine]]


def _inputs(model: ModelSpec, call: int = 0, guidance: float = 1.5) -> dict[str, Array]:
    f, h = model.frames, model.latent
    faces = named_noise(f"faces{call}", (f, model.resolution // 16, model.resolution // 16, 3), 0) * 40 + 120
    return {
        "faces": faces.repeat(16, 1).repeat(16, 2).clip(0, 255).astype(np.uint8),
        "noise": named_noise(f"noise{call}", (2, f, 4, h, h), 0),
        "latents": repeated_latents(named_noise("latents", (1, 4, 1, h, h), 0), f),
        "encoder_hidden_states": audio_batch(named_noise(f"tokens{call}", (f, model.tokens, model.audio_dim), 0), 2),
        "guidance": np.array([guidance], np.float32),
    }


@pytest.fixture
def executor_of(engines: Loaded, device: CudaDevice) -> Iterator[Callable[..., CudaExecutor]]:
    opened, loaded = engines
    activation = ActivationBlock(loaded.values(), device)
    contexts = {name: engine.context({"b": 2, "F": opened.model.vae_frames}) for name, engine in loaded.items()}
    for context in contexts.values():
        activation.lend(context)
    made: list[CudaExecutor] = []

    def make(*, cuda_graph: bool = True, slots: int = 3, given: ProgramInputs = PLAIN) -> CudaExecutor:
        program = chunk_program(opened.model, io_of(loaded), OPTIONS, given=given)
        made.append(CudaExecutor(program, contexts, device, cuda_graph=cuda_graph, slots=slots))
        return made[-1]

    yield make
    for executor in made:
        executor.close()
    for context in contexts.values():
        context.close()
    activation.close()


def _host(opened: Bundle, inputs: Mapping[str, Array], given: ProgramInputs = PLAIN) -> Mapping[str, Array]:
    loaded = {graph: load_engine(opened, graph) for graph in LOOP_GRAPHS}
    executor = HostExecutor(chunk_program(opened.model, io_of(loaded), OPTIONS, given=given), loaded)
    return executor.submit(inputs).result(None).arrays


@pytest.mark.parametrize("given", [PLAIN, ProgramInputs(kept=True)], ids=["plain", "kept"])
def test_it_equals_the_host(engines: Loaded, executor_of: Callable[..., CudaExecutor], given: ProgramInputs) -> None:
    model = engines[0].model
    inputs = _inputs(model)
    if given.kept:
        kept = named_noise("kept", (OPTIONS.steps + 1, 5, model.frames, model.latent, model.latent), 0)
        kept[:, 4] = np.linspace(1, 0, model.frames, dtype=np.float32)[:, None, None]
        inputs["kept"] = kept
    executor = executor_of(given=given)
    made, wanted = executor.submit(inputs).result(None).arrays, _host(engines[0], inputs, given)
    a, b = (one["latents_out"].ravel().astype(float) for one in (made, wanted))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999
    apart = np.clip(made["pixels"].astype(float), 0, 255) - np.clip(wanted["pixels"].astype(float), 0, 255)
    assert 10 * np.log10(255**2 / np.mean(apart**2)) > 35


def test_graph_and_plain_enqueues_are_the_same_bit_for_bit(
    engines: Loaded, executor_of: Callable[..., CudaExecutor]
) -> None:
    results = []
    for cuda_graph in (True, False):
        executor = executor_of(cuda_graph=cuda_graph)
        able = all(context.capturable(executor._compute) for context in executor._contexts.values())
        assert (executor.graph is not None) is (cuda_graph and able)
        for call in range(3):
            kept = executor.submit(_inputs(engines[0].model, call)).result(None).arrays["pixels"]
        results.append(kept)
    assert np.array_equal(results[0], results[1])


def test_rings_under_random_delays(engines: Loaded, executor_of: Callable[..., CudaExecutor]) -> None:
    model, executor = engines[0].model, executor_of()
    wanted = [executor.submit(_inputs(model, call)).result(None).arrays["pixels"] for call in range(4)]
    chance, idle = random.Random(0), threading.Event()
    submitted: queue.SimpleQueue[Submission] = queue.SimpleQueue()

    def submit() -> None:
        for call in range(24):
            idle.wait(chance.random() * 0.02)
            submitted.put(executor.submit(_inputs(model, call % 4)))

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    for call in range(24):
        idle.wait(chance.random() * 0.02)
        assert np.array_equal(submitted.get(timeout=60).result(None).arrays["pixels"], wanted[call % 4])
    thread.join(10)


@pytest.mark.parametrize("captured", [False, True])
def test_copies_of_rows(device: CudaDevice, captured: bool) -> None:
    """A part of an axis in the middle, as where the VAE takes fewer frames than a call has."""
    device.enter()
    source, target = device.allocate_pinned(6 * 512), device.allocate_pinned(4 * 256)
    stream, done = device.stream(), device.event()
    try:
        assert source.host is not None
        assert target.host is not None
        source.host[:] = np.random.default_rng(0).integers(0, 255, len(source.host), dtype=np.uint8)
        target.host[:] = 0

        def copy(on: Stream) -> None:
            device.copy_rows(target.address, 256, source.address + 128, 512, 200, 4, on)

        if captured:
            graph = device.capture(stream, copy)
            graph.launch(stream)
        else:
            copy(stream)
        device.record(done, stream)
        device.synchronise(done)
        wanted = source.host.reshape(6, 512)[:4, 128:328]
        assert np.array_equal(target.host.reshape(4, 256)[:, :200], wanted)
        assert not target.host.reshape(4, 256)[:, 200:].any()
        if captured:
            graph.close()
    finally:
        device.discard(stream, done)
        device.free(source)
        device.free(target)


def test_200_calls_take_no_more_memory(
    engines: Loaded, executor_of: Callable[..., CudaExecutor], device: CudaDevice
) -> None:
    executor, inputs = executor_of(), _inputs(engines[0].model)

    def run(calls: int) -> tuple[int, int]:
        for _ in range(calls):
            executor.submit(inputs).result(None)
        return device.free_bytes(), psutil.Process().memory_info().rss

    free, resident = run(20)
    free_after, resident_after = run(200)
    assert free_after >= free - 2**21
    assert resident_after <= resident + 2**24


def test_the_tripwire(engines: Loaded, executor_of: Callable[..., CudaExecutor]) -> None:
    model = engines[0].model
    runner = ChunkRunner(Only(executor_of()), model, seeded_noise(0))
    faces = _inputs(model)["faces"]
    tokens = np.full((model.frames, model.tokens, model.audio_dim), np.nan, np.float32)
    pending = runner.submit(faces, tokens, 0)
    with pytest.raises(NonFiniteOutput, match="16 of 16"):
        runner.result(pending)
    runner.result(runner.submit(faces, np.zeros_like(tokens), 1))


def test_too_little_memory_is_an_error_before_anything_starts(
    engines: Loaded, executor_of: Callable[..., CudaExecutor], device: CudaDevice
) -> None:
    blocks: list[Memory] = []
    size = 2**34
    while size >= 2**20:
        try:
            blocks.append(device.allocate(size))
        except OutOfDeviceMemory:
            size //= 2
    with pytest.raises(OutOfDeviceMemory, match="Close other programs"):
        executor_of()
    for block in blocks:
        device.free(block)
    executor = executor_of()
    executor.submit(_inputs(engines[0].model)).result(None)


def test_two_at_once(engines: Loaded) -> None:
    """Two LipSync objects in two threads give what each gives alone."""
    opened = engines[0]
    backend = next(iter(engines[1].values())).description.split()[0]
    points = landmarks(16, 360, 640)
    frames = [picture(360, 640, 0.1 * i) for i in range(16)]
    results: dict[int, list[Array]] = {}

    def clip(seed: int, into: int) -> None:
        where = iter(points)
        with LipSync.open(opened, backend, provider="cuda") as lipsync:
            stream = lipsync.stream(
                frames, waveform(9600), steps=2, seed=seed, detector=lambda _: Face(points=next(where))
            )
            results[into] = list(stream)

    clip(1, 0)
    threads = [threading.Thread(target=clip, args=(seed, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # ONNX Runtime times its convolutions in each session, and may choose others.
    most = 8 if backend == "onnxruntime" else 0
    for alone, beside in zip(results[0], results[1], strict=True):
        assert np.abs(alone.astype(int) - beside).max() <= most
    assert not all(np.array_equal(a, b) for a, b in zip(results[1], results[2], strict=True))
