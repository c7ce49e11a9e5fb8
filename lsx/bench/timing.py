"""Timing side by side: contenders take turns, the first run of each is told apart, ratios are formed pair by pair."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from lsx.bench.report import Row, Spread
from lsx.engines.device import Device, Memory

__all__ = [
    "NOISY",
    "Budget",
    "Work",
    "borrowed",
    "busy_note",
    "copy_seconds",
    "few_note",
    "measure",
    "noise_note",
    "repeated",
    "rounds",
    "rows_of",
    "spread_of",
]

Work = Callable[[], float | None]
"""Does the whole thing once, and waits for it. Returns its seconds where it has measured them itself, on the device."""

_FEW = 3
NOISY = 0.1
"""Distance of the quartiles over the median from which on a figure is called noisy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How often to measure: `repeat` rounds, or as many as fit into `seconds`, within least and most."""

    repeat: int | None = None
    seconds: float = 20.0
    least: int = 3
    most: int = 20

    def more(self, done: int, round_seconds: float, spent: float) -> bool:
        """Whether to measure another round."""
        if self.repeat is not None:
            return done < self.repeat
        return done < self.least or (done < self.most and spent + round_seconds <= self.seconds)


def measure(works: Mapping[str, Work], budget: Budget) -> dict[str, list[float]]:
    """Seconds of every run by contender: the first, which warms up, and then one a round, A B C A B C."""
    samples = {name: [_once(work)] for name, work in works.items()}
    for _ in rounds(budget, sum(times[0] for times in samples.values())):
        for name, work in works.items():
            samples[name].append(_once(work))
    return samples


def rounds(budget: Budget, first: float = 0.0) -> Iterator[int]:
    """0, 1, 2, ... for each round that the budget allows. first : seconds that the first is reckoned to take."""
    start, last, done = time.perf_counter(), first, 0
    while budget.more(done, last, time.perf_counter() - start):
        before = time.perf_counter()
        yield done
        last, done = time.perf_counter() - before, done + 1


def repeated(work: Callable[[], object], repeat: int) -> list[float]:
    """Seconds of `repeat` runs by the clock, after one that warms up."""
    work()
    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return samples


@contextmanager
def borrowed(device: Device, size: int, *kinds: Callable[[int], Memory]) -> Iterator[list[Memory]]:
    """Blocks of `size` bytes for a while. kinds : `device.allocate` or `device.allocate_pinned`, one a block."""
    with ExitStack() as stack:
        blocks = []
        for take in kinds:
            blocks.append(take(size))
            stack.callback(device.free, blocks[-1])
        yield blocks


def copy_seconds(device: Device, target: int, source: int, size: int, repeat: int) -> list[float]:
    """Seconds of `repeat` copies of `size` bytes between two addresses by events, after one that warms up."""
    device.enter()
    stream, start, end = device.stream(), device.event(timed=True), device.event(timed=True)
    samples = []
    try:
        for _ in range(1 + repeat):
            device.record(start, stream)
            device.copy(target, source, size, stream)
            device.record(end, stream)
            device.synchronise(end)
            samples.append(device.elapsed(start, end))
    finally:
        device.discard(stream, start, end)
    return samples[1:]


def _once(work: Work) -> float:
    start = time.perf_counter()
    own = work()
    return time.perf_counter() - start if own is None else own


def spread_of(seconds: Sequence[float], first: float | None = None) -> Spread:
    """Median and quartiles."""
    low, high = np.percentile(seconds, [25, 75])
    return Spread(
        median=statistics.median(seconds), low=float(low), high=float(high), first=first, repeats=len(seconds)
    )


def rows_of(section: str, what: str, measured: Mapping[str, Sequence[float]], baseline: str | None) -> list[Row]:
    """A row a contender, with the baseline's time over its own, pair by pair."""
    rows = []
    for name, (first, *seconds) in measured.items():
        ratio = None
        if baseline is not None and name != baseline:
            pairs = [b / a for a, b in zip(seconds, measured[baseline][1:], strict=True)]
            ratio = spread_of(pairs)
        taken = spread_of(seconds, first)
        rows.append(Row(section=section, what=what, contender=name, seconds=taken, ratio=ratio, versus=baseline))
    return rows


def few_note(rows: Iterable[Row]) -> str | None:
    """What to say of figures of fewer than three rounds."""
    few = [r for r in rows if r.seconds.repeats < _FEW]
    if not few:
        return None
    least = min(r.seconds.repeats for r in few)
    what = ", ".join(dict.fromkeys(r.what for r in few))
    return f"few: only {least} round(s) of {what}; --repeat measures more"


def noise_note(rows: Iterable[Row]) -> str | None:
    """What to say of rows whose quartiles are far apart."""
    noisy = [r for r in rows if r.seconds.high - r.seconds.low > NOISY * r.seconds.median]
    if not noisy:
        return None
    names = [f"{r.what} on {r.contender}" for r in sorted(noisy, key=lambda r: -r.seconds.median)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"noisy: the quartiles are over {100 * NOISY:.0f} % of the median apart for {', '.join(names[:3])}{more}; "
        "trust the ratios, which are formed pair by pair, more than the times"
    )


def busy_note() -> str | None:
    """What to say where other work runs on this machine."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if load <= 0.5 * cores:
        return None
    return f"busy: the machine's load was {load:.1f} on {cores} cores before the first measurement"
