"""What the frame rate costs in lips, on faces that lsx-tiny never saw: python -m examples.tiny.rates BUNDLE.

Each clip is drawn at a rate, dubbed with every frame kept (`--fps source`), and dubbed at 25 frames a second of those
nearest to that grid. Measured are the results' own pixels against what the generator draws at the same times.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from examples.tiny.clips import motion
from examples.tiny.dataset import HELD_OUT
from examples.tiny.face import Identity, Pose, mouth_region, render
from examples.tiny.mouth import FRAME_SAMPLES, mouth_track
from examples.tiny.voice import SAMPLE_RATE, speech
from lsx import LipSync, SamplingOptions
from lsx.metrics.lips import lag, mouth_opening, mouth_psnr, sync_correlation

__all__ = ["Rated", "Scene", "judge"]

SECONDS = 4.0
_SIZE = (256, 256)
_HOP = 0.01  # seconds between two openings of the truth
_HOPS = 4  # in a frame at 25 a second
_MIDDLE = FRAME_SAMPLES / SAMPLE_RATE / 2  # seconds: a frame's mouth is that of the middle of what it hears


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """How well lips moved, at the times of the result's frames."""

    correlation: float
    """Of the mouth's opening with the truth."""
    shown: float
    """The same on the clip's own frames, each showing the latest frame of the result."""
    lag: float
    """Seconds by which the result is late."""
    psnr: float
    """Of the mouth's region against the truth, dB."""


class Scene:
    """A face that talks, drawn at any times."""

    def __init__(self, seed: int, samples: NDArray[np.int16], seconds: float = SECONDS) -> None:
        self._identity, self._poses = Identity.from_seed(seed), motion(seed, int(25 * seconds) + 2)
        count = int(25 * seconds) + 2
        tracks = [mouth_track(samples[hop * FRAME_SAMPLES // _HOPS :], count) for hop in range(_HOPS)]
        self._openings = np.stack([track.opening for track in tracks], axis=1).reshape(-1)
        self._widths = np.stack([track.width for track in tracks], axis=1).reshape(-1)
        self._times = _MIDDLE + _HOP * np.arange(len(self._openings))

    def openings(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the mouth is open in frames that begin at `times`, seconds."""
        return np.interp(times + _MIDDLE, self._times, self._openings)

    def _pose(self, time: float) -> Pose:
        place = 25 * time
        before, after = self._poses[int(place)], self._poses[int(place) + 1]
        share = place - int(place)
        names = ("x", "y", "size", "angle", "blink")
        mixed = {name: (1 - share) * getattr(before, name) + share * getattr(after, name) for name in names}
        gaze = (1 - share) * np.array(before.gaze) + share * np.array(after.gaze)
        return Pose(**mixed, gaze=(float(gaze[0]), float(gaze[1])))

    def drawn(self, times: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Frames uint8 [n, 256, 256, 3] that begin at `times`, and the regions of their mouths [n, 4]."""
        widths, poses = np.interp(times + _MIDDLE, self._times, self._widths), [self._pose(t) for t in times.tolist()]
        frames = [
            render(self._identity, float(opening), float(width), pose, _SIZE)
            for opening, width, pose in zip(self.openings(times), widths, poses, strict=True)
        ]
        return np.stack(frames), np.array([mouth_region(self._identity, pose, _SIZE) for pose in poses])


def judge(lipsync: LipSync, seed: int, rate: int, options: SamplingOptions, seconds: float = SECONDS) -> list[Rated]:
    """Dub identity `seed` with another voice: every frame of `rate` a second, and those nearest to 25 a second."""
    voice = speech(seconds, seed + 500_000)
    video, truth = Scene(seed, speech(seconds, seed), seconds), Scene(seed, voice, seconds)
    times = np.arange(int(seconds * rate)) / rate
    rated = []
    for chosen in (np.arange(len(times)), np.round(np.arange(int(25 * seconds)) * rate / 25).astype(int)):
        every, at = len(chosen) == len(times), times[chosen.clip(0, len(times) - 1)]
        frames, _ = video.drawn(at)
        expected, regions = truth.drawn(at)
        with lipsync.stream(list(frames), voice, len(frames), options, fps=rate if every else 25) as stream:
            made = np.stack(list(stream))
        measured, fps = mouth_opening(made, regions), rate if every else 25
        latest = np.minimum(np.floor(times * fps + 1e-6).astype(int), len(made) - 1)
        rated.append(
            Rated(
                correlation=sync_correlation(measured, truth.openings(at)),
                shown=sync_correlation(measured[latest], truth.openings(times)),
                lag=lag(measured, truth.openings(at)) / fps,
                psnr=mouth_psnr(made, expected, regions),
            )
        )
    return rated


def main() -> None:
    """Print a row of means for each rate and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rates", type=int, nargs="+", default=[30, 50, 60])
    parser.add_argument("--first", type=int, default=HELD_OUT)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    options, found = SamplingOptions(steps=given.steps, guidance=1.5), defaultdict[str, list[Rated]](list)
    with LipSync.open(given.bundle) as lipsync:
        for rate in given.rates:
            for seed in range(given.first, given.first + given.count):
                kept, at_25 = judge(lipsync, seed, rate, options, given.seconds)
                found[f"{rate} a second, every frame"].append(kept)
                found[f"{rate} a second, at 25"].append(at_25)
    names = [field.name for field in fields(Rated)]
    print(f"{'':28}" + "".join(f"{name:>14}" for name in names))
    for row, all_of_it in found.items():
        means = [float(np.mean([getattr(rated, name) for rated in all_of_it])) for name in names]
        print(f"{row:28}" + "".join(f"{mean:14.3f}" for mean in means))


if __name__ == "__main__":
    main()
