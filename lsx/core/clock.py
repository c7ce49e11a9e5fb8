"""Frames' times: at an even rate, or each at a time of its own. Exact: fractions of a second, in ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FPS", "MODEL_CLOCK", "FrameClock"]

FPS = 25
"""Frames a second that the U-Net's temporal layers were trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameClock:
    """The times of frames 0, 1, 2, ..., the first at 0."""

    tick: Fraction
    """Seconds of a tick; where `starts` is None a frame lasts one."""
    starts: NDArray[np.int64] | None = None
    """First tick of each frame, and of what would come after the last, rising: [frames + 1]. None is an even rate."""
    whole_rate: Fraction | None = None
    """The rate of the whole that this is a part of."""

    @classmethod
    def at_rate(cls, rate: Fraction | int) -> FrameClock:
        """The clock of `rate` frames a second."""
        return cls(1 / Fraction(rate))

    @property
    def rate(self) -> Fraction:
        """Frames a second, in the mean; of a part, that of the whole: encoders go by it."""
        if self.whole_rate is not None:
            return self.whole_rate
        if self.starts is None:
            return 1 / self.tick
        return Fraction(len(self.starts) - 1) / (int(self.starts[-1]) * self.tick)

    def ticks(self, frames: Any) -> NDArray[np.int64]:
        """First ticks of `frames`, numbers from 0 on; with times of their own to the number of frames at most."""
        frames = np.asarray(frames, dtype=np.int64)
        return frames if self.starts is None else np.asarray(self.starts[frames], np.int64)

    def seconds(self, frame: int) -> Fraction:
        """The second at which a frame begins."""
        return int(self.ticks(frame)) * self.tick

    def nearest(self, seconds: float, frames: int) -> int:
        """The frame of 0..frames whose beginning is nearest to a time; of two the even one, as `round` takes it."""
        wanted = Fraction(round(seconds * 1_000_000), 1_000_000) / self.tick
        if self.starts is None:
            return round(wanted)
        if wanted > int(self.starts[-1]):  # beyond the last frame, as many as there were in the mean
            beyond = round((wanted - int(self.starts[-1])) * self.tick * self.rate)
            return min(len(self.starts) - 1 + beyond, frames)
        after = min(int(np.searchsorted(self.starts[: frames + 1], float(wanted))), frames)
        before = max(after - 1, 0)
        return before if wanted - int(self.starts[before]) < int(self.starts[after]) - wanted else after

    def nearest_units(self, frames: Sequence[int] | NDArray[np.int64], a_second: int, since: int = 0) -> NDArray[Any]:
        """The multiple of 1/`a_second` s nearest to each frame's beginning, counted from frame `since`'s: int64.

        Halves round up. Frames before `since` have negative ones.
        """
        ticks = self.ticks(np.asarray(frames)) - self.ticks(since)
        part = self.tick * a_second
        return np.asarray((2 * ticks * part.numerator + part.denominator) // (2 * part.denominator))

    def shown(self, order: NDArray[np.int64]) -> FrameClock:
        """The clock of these frames one after another, each as long as it lasts here."""
        if self.starts is None:
            return self
        return FrameClock(self.tick, np.concatenate([[0], np.cumsum(np.diff(self.starts)[order])]))

    def part(self, start: int, stop: int) -> FrameClock:
        """The clock of frames `start` to `stop` alone, the first at 0."""
        if self.starts is None:
            return self
        return FrameClock(self.tick, self.starts[start : stop + 1] - self.starts[start], self.rate)

    def frames_in(self, seconds: Fraction) -> int:
        """Frames until at least `seconds` have passed; with times of their own no more than there are."""
        ticks = seconds / self.tick
        whole = -(-ticks.numerator // ticks.denominator)
        return whole if self.starts is None else int(np.searchsorted(self.starts[:-1], whole))


MODEL_CLOCK = FrameClock.at_rate(FPS)
"""25 frames a second."""
