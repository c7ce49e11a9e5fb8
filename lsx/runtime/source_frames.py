"""Frames that a caller gives, as a run's timeline wants them: by index, forwards and backwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import FrameClock
from lsx.core.footage import FootageOptions
from lsx.core.tensors import Frame
from lsx.errors import MediaError, UsageError
from lsx.media.audio_reader import as_samples
from lsx.media.given import rate_of_frames
from lsx.media.placed_sound import placed_samples
from lsx.runtime.face_aligner import SourceFrames
from lsx.runtime.timeline import Timeline

__all__ = ["indexed", "stream_plan"]

_KEPT_BYTES = 2**30  # frames of a one-shot iterable that are kept for playing again
_ENDLESS = 2**40  # frames of an iterable whose end is not known yet


def stream_plan(
    frames: Iterable[Frame], samples: Any, options: FootageOptions, length: int | None
) -> tuple[Timeline, NDArray[np.int16] | NDArray[np.float32]]:
    """The timeline of frames and samples that a caller gives, and the samples as it places them.

    length : output frames, whatever the options say. Raises UsageError, also for what needs the number of a one-shot
    iterable's frames, and MediaError.
    """
    if length is not None and (isinstance(length, bool) or length < 1):
        raise UsageError(f"length is {length}; give a whole number of frames from 1 on")
    samples = as_samples(samples)
    clock = FrameClock.at_rate(rate_of_frames(options.rate))
    timeline = Timeline.of(options, _count(frames, options), len(samples), clock)
    if length is not None:
        timeline = replace(timeline, frames=length, fitted=False)
    if timeline.is_placed:
        seconds = timeline.seconds if timeline.fitted else None
        samples = placed_samples(samples, timeline.audio_offset, seconds)
    return timeline, samples


def _count(frames: Iterable[Frame], options: FootageOptions) -> int:
    if isinstance(frames, Sequence):
        if not len(frames):
            raise MediaError("no frames were given")
        return len(frames)
    needs_count = {
        "length": options.length in ("video", "shortest", "longest"),
        "extend": options.extend in ("cut_off", "silence", "remap"),
    }
    for name in (name for name, needed in needs_count.items() if needed):
        raise UsageError(
            f"{name} is {getattr(options, name)}, for which the number of frames must be known; give a sequence"
        )
    return _ENDLESS


def indexed(frames: Iterable[Frame], timeline: Timeline, length: int) -> SourceFrames:
    """`length` frames of `frames` with their source index, as `timeline` goes.

    A sequence is read again by index. Of a one-shot iterable the last GiB of frames is kept for playing again.
    """
    if isinstance(frames, Sequence):
        for source in timeline.sources(length):
            yield source, frames[source]
        return
    recent: deque[Frame] = deque()
    count, size = 0, 0
    for frame in islice(frames, timeline.first, timeline.first + timeline.count):
        yield timeline.first + count, frame
        count += 1
        if count == length:
            return
        recent.append(frame)
        size += frame.nbytes
        while size > _KEPT_BYTES and len(recent) > 1:
            size -= recent.popleft().nbytes
    if not count:
        raise MediaError("no frames were given")
    for source in replace(timeline, first=0, count=count).sources(length, count):
        if source < count - len(recent):
            raise MediaError(
                f"the frames ended after {count}, and only the last {len(recent)} are kept for playing again. "
                "Give a sequence, or a length that the frames reach"
            )
        yield timeline.first + source, recent[source - (count - len(recent))]
