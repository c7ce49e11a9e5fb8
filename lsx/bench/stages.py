"""The parts of a chunk's time: each kind of graph, what goes up and comes down, and what is waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lsx.bench.report import Share, Stages
from lsx.bench.timing import borrowed, copy_seconds
from lsx.bench.workloads import graph_axes, graph_feed, seeded_chunk
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_program import chunk_program
from lsx.denoising.chunk_runner import ChunkRunner, seeded_noise
from lsx.denoising.executor import HostExecutor, Only, io_of, vae_frames_of
from lsx.denoising.program import Operation, Program, RunGraph
from lsx.engines.device import Device
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.engine import Array, Engine

__all__ = ["chunk_stages"]


def chunk_stages(
    engines: Mapping[str, Engine], model: ModelSpec, options: SamplingOptions, contender: str, seconds: float
) -> Stages:
    """The stages of one 16-frame chunk. seconds : what the whole took where it was measured.

    On a CPU every operation of a chunk of its own is timed by the clock, and that chunk is the whole; on a device every
    kind is timed alone by events, and what the whole took beyond their sum is `wait`.
    """
    loop = {graph: engines[graph] for graph in LOOP_GRAPHS}
    on_device = {graph: engine for graph, engine in loop.items() if isinstance(engine, DeviceEngine)}
    program = chunk_program(model, io_of(loop), options, vae_frames=vae_frames_of(loop.values(), model))
    if len(on_device) == len(loop):
        shares = _on_device(program, on_device, model, options)
        whole = seconds
    else:
        shares, whole = _on_host(program, loop, model, options)
    ran = sum(share.seconds for share in shares if share.name in LOOP_GRAPHS)
    wait = whole - sum(share.seconds for share in shares)
    shares.append(Share(name="wait", seconds=max(wait, 0.0), count=1))
    return Stages(
        what=f"16-frame chunk, {options.steps} steps",
        contender=contender,
        seconds=whole,
        overlapping=False,
        stages=tuple(shares),
        device_busy=min(ran / whole, 1.0),
    )


def _on_host(
    program: Program, engines: Mapping[str, Engine], model: ModelSpec, options: SamplingOptions
) -> tuple[list[Share], float]:
    seconds: dict[str, list[float]] = {}
    last = 0.0

    def seen(operation: Operation, _written: Mapping[str, Array]) -> None:
        nonlocal last
        now = time.perf_counter()
        name = operation.graph if isinstance(operation, RunGraph) else "copy"
        seconds.setdefault(name, []).append(now - last)
        last = now

    executor = HostExecutor(program, engines, observe=seen)
    runner = ChunkRunner(Only(executor), model, seeded_noise(0), options.guidance)
    faces, tokens = seeded_chunk(model)
    start = last = time.perf_counter()
    runner.result(runner.submit(faces, tokens, 0))
    whole = time.perf_counter() - start
    executor.close()
    return [Share(name=name, seconds=sum(times), count=len(times)) for name, times in seconds.items()], whole


def _on_device(
    program: Program, engines: Mapping[str, DeviceEngine], model: ModelSpec, options: SamplingOptions
) -> list[Share]:
    counts: dict[str, int] = {}
    axes = graph_axes(engines.values(), model, options)
    for operation in program.operations:
        if isinstance(operation, RunGraph):
            counts[operation.graph] = counts.get(operation.graph, 0) + 1
    device = next(iter(engines.values())).device
    up, down = (sum(buffer.size for buffer in program.owned(owner)) for owner in ("input", "output"))
    shares = [Share(name="upload", seconds=_bus_seconds(device, up, up=True), count=1)]
    for graph, count in counts.items():
        engine = engines[graph]
        feed = graph_feed(engine, axes)
        times = sorted(engine.device_seconds(feed) for _ in range(5))
        engine.release_buffers()
        shares.append(Share(name=graph, seconds=times[2] * count, count=count))
    return [*shares, Share(name="download", seconds=_bus_seconds(device, down, up=False), count=1)]


def _bus_seconds(device: Device, size: int, *, up: bool) -> float:
    """Seconds of one copy over the bus, by events."""
    device.enter()
    with borrowed(device, size, device.allocate_pinned, device.allocate) as (pinned, memory):
        target, source = (memory, pinned) if up else (pinned, memory)
        return copy_seconds(device, target.address, source.address, size, 1)[0]
