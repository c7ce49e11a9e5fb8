"""A live talker on its clock: from an utterance's sound being complete to its first picture, encoded."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsx.bench.live_timing import LiveTiming
from lsx.core.clock import FPS
from lsx.core.sampling import SamplingOptions
from lsx.errors import BenchFailed
from lsx.media.audio_reader import SoundReader
from lsx.media.live_pictures import jpeg
from lsx.runtime.avatar_job import prepare_avatar
from lsx.runtime.lipsync import LipSync
from lsx.runtime.live.pacing import paced
from lsx.runtime.live.speech import live_samples
from lsx.runtime.live.talker import LiveTalker

__all__ = ["live_timing"]

_SAMPLES = 16 * 640
_UTTERANCES = 8
_PAUSE = 5  # idle frames between two utterances
_QUALITY = 80
_LATE = 0.04


def live_timing(
    lipsync: LipSync, clip: tuple[Path, Path], options: SamplingOptions, repeat: int | None, say: Callable[[str], None]
) -> LiveTiming:
    """Prepare an avatar of the clip's video, and have it say the first 0.64 s of the clip's sound `repeat` times.

    Raises what prepare_avatar and LipSync.live do; BenchFailed where no utterance came.
    """
    video, audio = clip
    with tempfile.TemporaryDirectory(prefix="lsx-bench-") as folder:
        say("preparing an avatar")
        avatar = prepare_avatar(lipsync.bundle, video, Path(folder) / "live.avatar", backend=lipsync.backend)
        sound = live_samples(SoundReader(audio).samples()[:_SAMPLES])
        with lipsync.live(avatar, options) as talker:
            talker.say(sound)  # the first one warms up
            talker.end()
            list(talker.spoken())
            talker.latencies.clear()
            count = repeat or _UTTERANCES
            shown, late = asyncio.run(_spoken(talker, sound, count, say))
        found = list(talker.latencies)[:count]
    if not found:
        raise BenchFailed("live: no utterance was spoken")
    total, computing = (np.array(one) for one in zip(*((one.total, one.computing) for one in found), strict=True))
    encoding = np.array(shown[: len(found)])
    latency, overhead = total + encoding, total + encoding - computing
    marks = {
        f"{name}_p{part}": float(np.percentile(values, part))
        for name, values in (("latency", latency), ("computing", computing), ("overhead", overhead))
        for part in (50, 95)
    }
    return LiveTiming(utterances=len(found), late=sum(late), pictures=len(late), **marks)


async def _spoken(
    talker: LiveTalker, sound: NDArray[np.int16], count: int, say: Callable[[str], None]
) -> tuple[list[float], list[bool]]:
    """Seconds that encoding each utterance's first picture took; of every picture whether it was late."""
    loop = asyncio.get_running_loop()
    encoded: list[float] = []
    late: list[bool] = []
    idle, said, before, first = 0, 0, -1, (0, 0.0)
    with ThreadPoolExecutor(1, "lsx-bench") as pool:
        async for frame in paced(talker, pool):
            came = loop.time()
            first = first if late else (frame.number, came)
            await loop.run_in_executor(pool, jpeg, frame.image, _QUALITY)
            due = first[1] + (frame.number - first[0]) / FPS
            late.append(loop.time() > due + _LATE)
            if frame.utterance is not None and frame.utterance != before:
                before = frame.utterance
                encoded.append(loop.time() - came)
            idle = 0 if frame.speaking or len(encoded) < said else idle + 1
            if idle > _PAUSE:
                if said == count:
                    return encoded, late
                said, idle = said + 1, 0
                say(f"utterance {said} of {count}")
                talker.say(sound)
                talker.end()
    raise BenchFailed("live: the talker ended")
