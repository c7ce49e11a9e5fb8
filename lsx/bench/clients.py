"""Several clients of one set of engines: what they get together beside one after the other, chunk by chunk."""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lsx.bench.client_row import ClientRow
from lsx.bench.timing import Budget, rounds
from lsx.core.sampling import SamplingOptions
from lsx.errors import BenchFailed
from lsx.runtime.lipsync import LipSync
from lsx.runtime.run_report import Progress, RunReport

__all__ = ["ENGINES_RUN", "client_rows", "counts_to"]

ENGINES_RUN = ("VAE encode", "denoise", "VAE decode", "device")
"""Stages of a run in which engines run."""

_CHUNK = 16
_SECONDS = 120.0


def counts_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most`."""
    powers = [2**power for power in range(most.bit_length()) if 2**power < most]
    return (*powers, most)


class _Client:
    """One run, and when its frames came."""

    def __init__(self, start: float) -> None:
        self._start = start
        self.at: list[float] = []
        self.report: RunReport | None = None
        self.error: Exception | None = None

    def run(self, work: Callable[[Callable[[Progress], None]], RunReport]) -> None:
        try:
            self.report = work(self._seen)
        except Exception as error:
            self.error = error

    def _seen(self, progress: Progress) -> None:
        while len(self.at) < progress.frames:  # told of steps, too
            self.at.append(time.perf_counter() - self._start)

    @property
    def chunks(self) -> list[float]:
        """Seconds from chunk to chunk; of a clip of one chunk, to its end."""
        ends = [self.at[i] for i in range(_CHUNK - 1, len(self.at), _CHUNK)]
        return list(np.diff(ends)) if len(ends) > 1 else self.at[-1:]

    @property
    def engine_seconds(self) -> float:
        assert self.report is not None  # noqa: S101
        return sum(seconds for stage, seconds in self.report.stages.items() if stage in ENGINES_RUN)


class _Round:
    """So many clients at once."""

    def __init__(self, lipsync: LipSync, clip: tuple[str, str], options: SamplingOptions, count: int) -> None:
        """Raises what a run raises."""
        with tempfile.TemporaryDirectory(prefix="lsx-bench-") as folder:
            start = time.perf_counter()
            self.clients = [_Client(start) for _ in range(count)]
            outputs = [Path(folder) / f"{number}.mp4" for number in range(count)]

            def work(output: Path) -> Callable[[Callable[[Progress], None]], RunReport]:
                return lambda seen: lipsync.run(*clip, output, options, progress=seen)

            threads = [
                threading.Thread(target=client.run, args=(work(output),))
                for client, output in zip(self.clients, outputs, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.seconds = time.perf_counter() - start
            for client in self.clients:
                if client.error is not None:
                    raise client.error
            self.digests = {hashlib.sha256(output.read_bytes()).hexdigest() for output in outputs}
        self.frames = sum(len(client.at) for client in self.clients)
        self.idle = max(1 - sum(client.engine_seconds for client in self.clients) / self.seconds, 0.0)


def client_rows(
    lipsync: LipSync,
    clip: tuple[str, str],
    options: SamplingOptions,
    most: int,
    repeat: int | None,
    say: Callable[[str], None],
) -> list[ClientRow]:
    """1, 2, 4, ... `most` clients in turn, round by round, after a run that warms up.

    clip : video and sound. Raises what LipSync.run raises; BenchFailed for a clip of no frames.
    """
    counts, alone = counts_to(most), _Round(lipsync, clip, options, 1)
    if not alone.frames:
        raise BenchFailed("clients: the clip gives no frame")
    made: dict[int, list[_Round]] = {count: [] for count in counts}
    for number in rounds(Budget(repeat=repeat, seconds=_SECONDS, least=3, most=10)):
        for count in counts:
            say(f"round {number + 1}: {count} client(s)")
            made[count].append(_Round(lipsync, clip, options, count))
    singles = [one.seconds for one in made[1]]
    return [_row(count, made[count], singles, alone.digests) for count in counts]


def _row(count: int, made: Sequence[_Round], singles: Sequence[float], digests: set[str]) -> ClientRow:
    gains = [count * single / one.seconds for single, one in zip(singles, made, strict=True)]
    clients = [client for one in made for client in one.clients]
    chunks = [seconds for client in clients for seconds in client.chunks]
    low, high = np.percentile(gains, [25, 75])
    p50, p95 = np.percentile(chunks, [50, 95])
    return ClientRow(
        clients=count,
        rounds=len(made),
        seconds=statistics.median(one.seconds for one in made),
        frames_per_second=statistics.median(one.frames / one.seconds for one in made),
        gain=statistics.median(gains),
        gain_low=float(low),
        gain_high=float(high),
        first_frame=statistics.median(client.at[0] for client in clients),
        chunk_p50=float(p50),
        chunk_p95=float(p95),
        idle=statistics.median(one.idle for one in made),
        same=all(one.digests == digests for one in made),
    )
