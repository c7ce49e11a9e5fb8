"""The clock of a file's own frames, from the times that its container gives them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lsx.core.clock import FrameClock

__all__ = ["own_clock"]

_ROUNDED = Fraction(11, 10_000)  # seconds by which a container may round a time
_OWN_TICKS = 90_000  # a second, of files whose frames come unevenly: MPEG's
_USUAL_RATES = tuple(Fraction(rate) for rate in (10, 12, 15, 24, 25, 30, 48, 50, 60, 100, 120)) + tuple(
    Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)
)


def own_clock(times: list[Fraction], last: Fraction) -> FrameClock:
    """The clock of frames at these times, the first at 0, the last of which lasts `last` seconds.

    An even rate where all times are as an even rate rounded to the file's ticks, or nearly so, gives them.
    """
    even = _even_rate(times, last)
    if even is not None:
        return FrameClock.at_rate(even)
    tick = Fraction(1, _OWN_TICKS)
    starts = [round(time / tick) for time in (*times, times[-1] + last)]
    return FrameClock(tick, np.array(starts, np.int64))


def _even_rate(times: list[Fraction], last: Fraction) -> Fraction | None:
    """The rate of which all these times are within a millisecond or so, to which some containers round."""
    whole = times[-1] + last
    mean = Fraction(len(times)) / whole
    usual = min(_USUAL_RATES, key=lambda rate: abs(rate - mean))
    rate = usual if abs(usual - mean) * whole < 1 else mean.limit_denominator(1001)
    return rate if all(abs(time - number / rate) <= _ROUNDED for number, time in enumerate(times)) else None
