"""What runs in processes of their own: cold start, clip, clients, long run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsx.bench.child import run_child
from lsx.bench.client_row import ClientRow
from lsx.bench.clients import ENGINES_RUN
from lsx.bench.live_timing import LiveTiming
from lsx.bench.options import BenchOptions
from lsx.bench.report import ClipTiming, ColdStart, LongRun, Share, Stages
from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.media.video_reader import FPS

__all__ = ["ChildRuns", "memory_growth"]

GROWTH = 0.01
"""Growth of memory after the warm-up, as a share, above which a long run has failed."""

_JUDGED = 8  # chunks


@dataclass(frozen=True, slots=True)
class ChildRuns:
    """Runs of one bundle with the same options."""

    bundle: Bundle
    checkpoint_dir: Path | None
    options: SamplingOptions
    settings: BenchOptions
    backend: str
    """The backend of the clip and the long run."""
    say: Callable[[str], None]

    def cold(self, backend: str) -> ColdStart:
        """A new process until the first frames."""
        self.say(f"cold start on {backend}")
        result = self._run("cold", backend)
        steps = tuple(Share(name=name, seconds=seconds, count=1) for name, seconds in result["steps"])
        return ColdStart(contender=backend, steps=steps, seconds=sum(s.seconds for s in steps))

    def clip(self, video: Path, audio: Path) -> tuple[ClipTiming, Stages]:
        """A clip from file to file."""
        self.say("clip")
        result = self._run("clip", self.backend, video=str(video), audio=str(audio))
        at, frames, seconds = result["at"], result["frames"], result["seconds"]
        ends = [at[i] for i in range(15, len(at), 16)]
        chunks = np.diff(ends) if len(ends) > 1 else np.array(ends or [seconds])
        per_second = seconds / (frames / FPS)
        waits = result["waits"]
        shares = tuple(Share(name=n, seconds=s, count=1, waited=waits.get(n, 0.0)) for n, s in result["stages"].items())
        ran = sum(s for n, s in result["stages"].items() if n in ENGINES_RUN)
        stages = Stages(
            what="clip, stages on threads of their own",
            contender=self.backend,
            seconds=seconds,
            overlapping=True,
            stages=shares,
            device_busy=min(ran / seconds, 1.0),
        )
        price = self.settings.price_per_hour
        p50, p95, p99 = (float(p) for p in np.percentile(chunks, [50, 95, 99]))
        figures = ClipTiming(
            video=video.name,
            audio=audio.name,
            frames=frames,
            seconds=seconds,
            seconds_per_second=per_second,
            first_frame=at[0],
            chunk_p50=p50,
            chunk_p95=p95,
            chunk_p99=p99,
            peak_host_bytes=result["peak_host_bytes"],
            peak_device_bytes=max(result["device_bytes"], default=None),
            streams=1 / per_second,
            cost_per_minute=None if price is None else price / 3600 * per_second * 60,
        )
        return figures, stages

    def clients(self, video: Path, audio: Path, most: int) -> tuple[ClientRow, ...]:
        """The clip for 1, 2, 4, ... `most` clients at once, engines loaded once."""
        self.say("clients")
        clip = {"video": str(video), "audio": str(audio)}
        result = self._run("clients", self.backend, **clip, most=most, repeat=self.settings.repeat)
        return tuple(ClientRow.model_validate(row) for row in result["rows"])

    def live(self, video: Path, audio: Path) -> LiveTiming:
        """An avatar of the video that speaks the sound's beginning, on its clock."""
        self.say("live")
        result = self._run("live", self.backend, video=str(video), audio=str(audio), repeat=self.settings.repeat)
        return LiveTiming.model_validate(result["timing"])

    def long(self, duration: float) -> tuple[LongRun, str | None]:
        """Synthetic frames for `duration` seconds; and a note where they made too few chunks."""
        self.say("long run")
        result = self._run("long", self.backend, duration=duration)
        chunks = len(result["host"])
        judged = chunks >= _JUDGED
        growth = max(memory_growth(result["host"]), memory_growth(result["device"]))
        run = LongRun(
            seconds=result["at"][-1],
            frames=result["frames"],
            at=tuple(result["at"]),
            host_bytes=tuple(result["host"]),
            device_bytes=tuple(result["device"]),
            growth=growth,
            judged=judged,
            failed=judged and growth > GROWTH,
        )
        few = f"long run: {chunks} chunks are too few to judge memory by; give a longer --duration"
        return run, None if judged else few

    def _run(self, kind: str, backend: str, **more: Any) -> dict[str, Any]:
        task = {
            "kind": kind,
            "bundle": str(self.bundle.path),
            "backend": backend,
            "provider": self.settings.provider,
            "threads": self.settings.threads,
            "trust_code": self.settings.trust_code,
            "checkpoint_dir": None if self.checkpoint_dir is None else str(self.checkpoint_dir),
            "options": asdict(self.options),
            **more,
        }
        return run_child(task, seen=self.say)


def memory_growth(taken: list[int]) -> float:
    """Growth from the first quarter after the warm-up (a tenth, at least 2 chunks) to the last, of medians; a share."""
    after = taken[max(len(taken) // 10, 2) :]
    if len(after) < 2:
        return 0.0
    quarter = max(len(after) // 4, 1)
    first, last = statistics.median(after[:quarter]), statistics.median(after[-quarter:])
    return last / first - 1 if first else 0.0
