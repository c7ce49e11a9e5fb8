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
    last = watch.progress(0)
    progress(last)
    frames = 0
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
    """Reckons the time left of one run from the chunks that are done."""

    def __init__(self, pipeline: FramePipeline, steps: int) -> None:
        self._pipeline, self._steps = pipeline, steps
        self._start = time.perf_counter()
        self._chunks = pipeline.chunker.count

    def progress(self, frames: int) -> Progress:
        seconds = time.perf_counter() - self._start
        chunk, step = self._pipeline.runner.position
        total = self._pipeline.chunker.length
        # Frames come sixteen at once: the chunk under way counts by its steps, and not by what is still being pasted.
        done = max(chunk + min(step / self._steps, 1.0), frames / total * self._chunks)
        left = None if done <= 0 else seconds / done * max(self._chunks - done, 0.0)
        return Progress(
            frames=frames,
            total=total,
            fps=frames / seconds if seconds > 0 else 0.0,
            chunk=min(chunk + 1, self._chunks),
            chunks=self._chunks,
            step=step,
            steps=self._steps,
            seconds_left=0.0 if frames == total else left,
        )
