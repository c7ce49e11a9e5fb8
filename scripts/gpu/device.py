"""Stage 2: the CUDA device alone. Every check knows the numbers that it must find."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from lsx.engines.cuda_device import shared_device
from lsx.engines.device import Device, Event, Memory, Stream
from lsx.errors import EngineError, OutOfDeviceMemory
from scripts.gpu.checks import Checks
from scripts.gpu.stage import Settings

__all__ = ["check_device", "run"]

SIZE = 2**20
WORK = (200, 2**26)
"""How many copies up of how many bytes a waiting thread waits for: half a second over a fast bus."""


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 2."""
    del settings
    device = checks.run("open", shared_device)
    if device is not None:
        check_device(checks, device)


def check_device(checks: Checks, device: Device) -> None:
    """Copies, waits, capture, failures, memory."""
    for name, check in (
        ("copies up, on the device and down", _copies),
        ("copies of rows", _rows),
        ("a stream waits for another's event", _waits),
        ("a captured graph follows what its memory holds", _graph),
        ("a capture that fails leaves the stream usable", _failed_capture),
        ("out of memory is told, and passes", _out_of_memory),
        ("a hundred blocks come back", _comes_back),
        ("a thread that waits sleeps", _sleeps),
    ):
        checks.run(name, _with, device, check)


class _Bench:
    """Blocks, a stream and an event for one check, given back after it."""

    def __init__(self, device: Device, stack: ExitStack) -> None:
        self.device, self._stack = device, stack
        device.enter()
        self.done: Event = self.event()

    def memory(self, size: int = SIZE) -> Memory:
        made = self.device.allocate(size)
        self._stack.callback(self.device.free, made)
        return made

    def pinned(self, content: np.ndarray[Any, Any] | int = SIZE) -> tuple[Memory, np.ndarray[Any, Any]]:
        size = content if isinstance(content, int) else content.nbytes
        made = self.device.allocate_pinned(size)
        self._stack.callback(self.device.free, made)
        if made.host is None:
            raise AssertionError("pinned memory that the CPU cannot read")
        made.host[:] = 0 if isinstance(content, int) else content.view(np.uint8)
        return made, made.host

    def stream(self) -> Stream:
        made = self.device.stream()
        self._stack.callback(self.device.discard, made)
        return made

    def event(self) -> Event:
        made = self.device.event(timed=True)
        self._stack.callback(self.device.discard, made)
        return made

    def finish(self, stream: Stream) -> None:
        self.device.record(self.done, stream)
        self.device.synchronise(self.done)


def _with(device: Device, check: Callable[[_Bench], Any]) -> Any:
    with ExitStack() as stack:
        return check(_Bench(device, stack))


def _random(seed: int, size: int = SIZE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def _same(made: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    wrong = int((made != wanted).sum())
    if wrong:
        raise AssertionError(f"{wrong} of {wanted.size} bytes are wrong")


def _copies(bench: _Bench) -> None:
    content = _random(1)
    source, _ = bench.pinned(content)
    target, host = bench.pinned()
    first, second, stream = bench.memory(), bench.memory(), bench.stream()
    for a, b in ((first, source), (second, first), (target, second)):
        bench.device.copy(a.address, b.address, SIZE, stream)
    bench.finish(stream)
    _same(host, content)


def _rows(bench: _Bench) -> None:
    content = _random(2, 64 * 512)
    source, _ = bench.pinned(content)
    target, host = bench.pinned(64 * 256)
    stream = bench.stream()
    bench.device.copy_rows(target.address, 256, source.address + 128, 512, 200, 63, stream)
    bench.finish(stream)
    wanted = np.zeros((64, 256), np.uint8)
    wanted[:63, :200] = content.reshape(64, 512)[:63, 128:328]
    _same(host.reshape(64, 256), wanted)


def _waits(bench: _Bench) -> None:
    """A long chain of copies on one stream; the other may read only what its end has written."""
    content = _random(3)
    source, _ = bench.pinned(content)
    target, host = bench.pinned()
    blocks = [bench.memory() for _ in range(2)]
    first, second, written = bench.stream(), bench.stream(), bench.event()
    bench.device.copy(blocks[0].address, source.address, SIZE, first)
    for index in range(200):
        bench.device.copy(blocks[1 - index % 2].address, blocks[index % 2].address, SIZE, first)
    bench.device.record(written, first)
    bench.device.wait(written, second)
    bench.device.copy(target.address, blocks[0].address, SIZE, second)
    bench.finish(second)
    _same(host, content)


def _graph(bench: _Bench) -> None:
    source, given = bench.pinned()
    target, host = bench.pinned()
    middle, stream = bench.memory(), bench.stream()

    def body(on: Stream) -> None:
        bench.device.copy(middle.address, source.address, SIZE, on)
        bench.device.copy(target.address, middle.address, SIZE, on)

    graph = bench.device.capture(stream, body)
    try:
        for seed in (4, 5, 6):
            given[:] = _random(seed)
            graph.launch(stream)
            bench.finish(stream)
            _same(host, given)
    finally:
        graph.close()


def _failed_capture(bench: _Bench) -> None:
    stream = bench.stream()

    def body(on: Stream) -> None:
        del on
        raise EngineError("planted")

    try:
        bench.device.capture(stream, body)
    except EngineError as error:
        told = str(error)
    else:
        raise AssertionError("a capture whose body failed gave a graph")
    if "planted" not in told:
        raise AssertionError(f"the reason was lost: {told}")
    _copies(bench)
    bench.finish(stream)


def _out_of_memory(bench: _Bench) -> str:
    blocks, size = [], 2**40
    free = bench.device.free_bytes()
    told = ""
    try:
        while size >= 2**24:
            try:
                blocks.append(bench.device.allocate(size))
            except OutOfDeviceMemory as error:
                told, size = str(error), size // 2
    finally:
        for block in blocks:
            bench.device.free(block)
    if not told:
        raise AssertionError("memory never ended")
    back = bench.device.free_bytes()
    if back < free - 2**24:
        raise AssertionError(f"{free - back} bytes did not come back")
    _copies(bench)
    return f"{sum(block.size for block in blocks) / 2**30:.1f} GiB were given of {free / 2**30:.1f} free"


def _comes_back(bench: _Bench) -> None:
    before = bench.device.free_bytes()
    for _ in range(100):
        bench.device.free(bench.device.allocate(SIZE))
        bench.device.free(bench.device.allocate_pinned(SIZE))
    lost = before - bench.device.free_bytes()
    if lost > SIZE:
        raise AssertionError(f"{lost} bytes did not come back")


def _sleeps(bench: _Bench) -> str:
    """CPU time of this thread while it waits for many copies."""
    count, size = WORK
    source, _ = bench.pinned(size)
    target, stream = bench.memory(size), bench.stream()
    for _ in range(count):
        bench.device.copy(target.address, source.address, size, stream)
    bench.device.record(bench.done, stream)
    clock, busy = time.perf_counter(), time.thread_time()
    bench.device.synchronise(bench.done)
    waited, used = time.perf_counter() - clock, time.thread_time() - busy
    return f"{used:.4f} s of CPU in {waited:.4f} s of waiting"
