"""A device for tests on any machine: streams whose work runs as late, and in as odd an order, as the events allow.

Nothing runs when it is enqueued. Only when the host waits does work run, streams taking turns at random; freed and new
memory is filled with NaN bytes. An executor that forgets a wait, reuses memory too early or reads what is not there
yet gives wrong numbers or never ends. Any thread may use it; work of two threads mixes as that of two streams does.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.engines.device import CapturedGraph, Device, Event, Memory, Stream
from lsx.engines.device_engine import Context, DeviceEngine
from lsx.engines.engine import Array, Engine
from lsx.errors import EngineError, OutOfDeviceMemory

Work = Callable[[], None]


class _Wait:
    """In a stream's queue: go on when the event's `count`-th mark is reached."""

    def __init__(self, event: Event, count: int) -> None:
        self.event, self.count = event, count


class SimulatedDevice(Device):
    def __init__(self, seed: int = 0, memory: int = 2**30) -> None:
        self.random = random.Random(seed)
        self.mutex = threading.RLock()
        self.capacity = memory
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.queues: dict[Stream, deque[Work | _Wait]] = {}
        self.recorded: dict[Event, int] = {}
        self.reached: dict[Event, int] = {}
        self.launches = self.discarded = 0
        self.capturing: list[Work] | None = None
        self._next = 4096

    def enter(self) -> None:
        return None

    def free_bytes(self) -> int:
        return self.capacity - sum(len(block) for block in self.blocks.values())

    def allocate(self, size: int) -> Memory:
        return self._new(size, host=False)

    def allocate_pinned(self, size: int) -> Memory:
        return self._new(size, host=True)

    def _new(self, size: int, host: bool) -> Memory:
        with self.mutex:
            if size > self.free_bytes():
                raise OutOfDeviceMemory("no memory")
            address, self._next = self._next, self._next + (size // 4096 + 2) * 4096
            self.blocks[address] = np.full(size, 0xFF, np.uint8)
            return Memory(address, size, self.blocks[address] if host else None)

    def free(self, memory: Memory) -> None:
        with self.mutex:
            self.blocks.pop(memory.address).fill(0xFF)

    def at(self, address: int, size: int) -> NDArray[np.uint8]:
        """The bytes at an address. Fails where no block is."""
        base = max(b for b in self.blocks if b <= address)
        assert address + size <= base + len(self.blocks[base])
        return self.blocks[base][address - base : address - base + size]

    def stream(self) -> Stream:
        with self.mutex:
            made = Stream(len(self.queues) + 1)
            self.queues[made] = deque()
            return made

    def event(self, *, timed: bool = False) -> Event:
        del timed
        with self.mutex:
            made = Event(len(self.recorded) + 1)
            self.recorded[made] = self.reached[made] = 0
            return made

    def discard(self, *handles: Stream | Event) -> None:
        self.discarded += len(handles)

    def enqueue(self, work: Work, stream: Stream) -> None:
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            self.queues[stream].append(work)

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        def work() -> None:
            self.at(target, size)[:] = self.at(source, size)

        self.enqueue(work, stream)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: Stream
    ) -> None:
        def work() -> None:
            for row in range(rows):
                self.at(target + row * target_pitch, width)[:] = self.at(source + row * source_pitch, width)

        self.enqueue(work, stream)

    def record(self, event: Event, stream: Stream) -> None:
        with self.mutex:
            self.recorded[event] += 1
            count = self.recorded[event]

            def work() -> None:
                self.reached[event] = max(self.reached[event], count)

            self.queues[stream].append(work)

    def wait(self, event: Event, stream: Stream) -> None:
        with self.mutex:
            self.queues[stream].append(_Wait(event, self.recorded[event]))

    def synchronise(self, event: Event) -> None:
        wanted = self.recorded[event]
        while True:
            with self.mutex:
                if self.reached[event] >= wanted:
                    return
                ready = [queue for queue in self.queues.values() if queue and self._may_run(queue[0])]
                assert ready, "every stream waits for what never comes"
                item = self.random.choice(ready).popleft()
                if not isinstance(item, _Wait):
                    item()

    def elapsed(self, start: Event, end: Event) -> float:
        return float(end > start)

    def _may_run(self, item: Work | _Wait) -> bool:
        return not isinstance(item, _Wait) or self.reached[item.event] >= item.count

    def capture(self, stream: Stream, body: Callable[[Stream], None]) -> CapturedGraph:
        with self.mutex:
            self.capturing = []
            try:
                body(stream)
                return _SimulatedGraph(self, self.capturing)
            finally:
                self.capturing = None

    def close(self) -> None:
        self.queues.clear()


class _SimulatedGraph(CapturedGraph):
    def __init__(self, device: SimulatedDevice, works: list[Work]) -> None:
        self._device, self._works = device, works

    def launch(self, stream: Stream) -> None:
        with self._device.mutex:
            self._device.launches += 1
            self._device.queues[stream].extend(self._works)

    def close(self) -> None:
        self._works = []


class SimulatedEngine(DeviceEngine):
    """Any NumPy engine on a simulated device. Its contexts scribble over activation memory, more of it the longer."""

    def __init__(
        self, engine: Engine, device: SimulatedDevice, *, activation: int = 512, capturable: bool = True
    ) -> None:
        super().__init__(engine.graph, list(engine.inputs.values()), list(engine.outputs.values()), device)
        self.engine, self.simulated = engine, device
        self.can_capture, self.unit = capturable, activation
        self.fails_in_capture = False
        self.contexts = 0
        """Made and not closed."""

    description = "simulated"

    @property
    def activation_bytes(self) -> int:
        return 2 * self.unit

    def warmed_up(self, context: Context) -> None:
        """Called by each context; for tests to replace."""

    def context(self, axes: Mapping[str, int]) -> SimulatedContext:
        return SimulatedContext(self, axes)

    def close(self) -> None:
        self.release_buffers()


class SimulatedContext(Context):
    def __init__(self, engine: SimulatedEngine, axes: Mapping[str, int]) -> None:
        self._engine, self._axes = engine, dict(axes)
        self._activation: Memory | None = None
        self._device = engine.simulated
        engine.contexts += 1

    @property
    def activation_bytes(self) -> int:
        return self._engine.unit * self._axes.get("b", 2)

    def use_activation(self, memory: Memory) -> None:
        self._activation = memory

    def capturable(self, stream: Stream) -> bool:
        del stream
        return self._engine.can_capture

    def warmed_up(self) -> None:
        self._engine.warmed_up(self)

    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        device, engine, activation, needed = self._device, self._engine, self._activation, self.activation_bytes
        if engine.fails_in_capture and device.capturing is not None:
            raise EngineError("not while capturing")
        assert all(address % 256 == 0 for address in addresses.values())
        assert activation is not None
        assert activation.size >= needed

        def array(spec: Any) -> Array:
            shape = tuple(self._axes[n] if isinstance(n, str) else n for n in spec.shape)
            dtype = np.dtype(engine.numpy_dtype(spec))
            raw = device.at(addresses[spec.name], int(np.prod(shape)) * dtype.itemsize)
            return np.asarray(raw.view(dtype).reshape(shape))

        marks: deque[bytes] = deque()

        def begin() -> None:
            marks.append(device.random.randbytes(needed))
            device.at(activation.address, needed)[:] = np.frombuffer(marks[-1], np.uint8)

        def work() -> None:
            held = device.at(activation.address, needed)
            # Two engines at once in one activation block spoil each other's numbers.
            spoilt = held.tobytes() != marks.popleft()
            made = engine.engine.run({name: array(spec) for name, spec in engine.inputs.items()})
            for name, spec in engine.outputs.items():
                array(spec)[...] = made[name] + np.asarray(77 * spoilt, made[name].dtype)

        device.enqueue(begin, stream)
        device.enqueue(work, stream)

    def close(self) -> None:
        self._engine.contexts -= 1
