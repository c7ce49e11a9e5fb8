"""The progress of a run, told to its caller while it waits."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lsx.core.tensors import Frame
from lsx.core.threaded_stages import StageChain
from lsx.runtime.frame_pipeline import FramePipeline
from lsx.runtime.run_report import Progress, ProgressCallback

__all__ = ["watched"]

_PAUSE = 0.2
"""Seconds between two looks at the denoising steps."""


def watched(
    chain: StageChain, pipeline: FramePipeline, steps: int, progress: ProgressCallback | None
) -> Iterator[tuple[Frame, Frame]]:
    """The frames of `chain`, `progress` being called at the start, after each, and when a step was done meanwhile."""
    if progress is None:
        yield from chain
        return
    watch = _Watch(pipeline, steps)
    last = watch.progress(pipeline.border.frame)
    progress(last)
    frames = pipeline.border.frame
    while True:
        while not chain.ready(_PAUSE):
            now = watch.progress(frames)
            if (now.chunk, now.step) != (last.chunk, last.step):
                last = now
                progress(last)
        try:
            item = next(chain)
        except StopIteration:
            return
        yield item
        frames += 1
        last = watch.progress(frames)
        progress(last)


class _Watch:
    """Reckons the time left of one run from the chunks that are whole."""

    def __init__(self, pipeline: FramePipeline, steps: int) -> None:
        self._pipeline, self._steps = pipeline, steps
        self._start = time.perf_counter()
        self._chunks = pipeline.chunker.count
        self._to_compute = self._chunks - pipeline.chunker.silent
        self._computed = 0
        self._first = (0, 0.0)
        """Chunks that were seen to be whole the first time, and when."""
        self._seconds_a_chunk = 0.0

    def progress(self, frames: int) -> Progress:
        seconds = time.perf_counter() - self._start
        chunk, step = self._pipeline.runner.position
        total = self._pipeline.chunker.length
        return Progress(
            frames=frames,
            total=total,
            fps=(frames - self._pipeline.border.frame) / seconds if seconds > 0 else 0.0,
            chunk=min(chunk + 1, self._chunks),
            chunks=self._chunks,
            step=step,
            steps=self._steps,
            seconds_left=0.0 if frames == total else self._seconds_left(seconds, chunk, step),
        )

    def _seconds_left(self, seconds: float, chunk: int, step: int) -> float | None:
        """The time left, at least a second: frames are to come. chunk, step : what is under way, as it is seen."""
        computed, collected = self._pipeline.computed, self._pipeline.collected
        if not computed:
            return None
        if computed > self._computed:
            self._seconds_a_chunk = (seconds - self._first[1]) / (computed - self._first[0])
            if not self._computed:  # the first takes longer: what is made ready with it is left out of the others
                self._first = (computed, seconds)
            self._computed = computed
        to_come = min(self._to_compute - computed, self._chunks - collected)
        # The decoder's work after the last step counts as one more.
        share = step / (self._steps + 1) if chunk >= collected else 0.0
        return max(self._seconds_a_chunk * (to_come - share), 1.0)
