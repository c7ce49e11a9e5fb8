"""When frames are shown: even rates, times of their own, and what is nearest to them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.footage import FootageOptions
from lsx.errors import UsageError

UNEVEN = FrameClock(Fraction(1, 1000), np.array([0, 40, 100, 110, 200], np.int64))


def test_an_even_rate() -> None:
    clock = FrameClock.at_rate(Fraction(30000, 1001))
    assert clock.seconds(30) == Fraction(1001, 1000)
    assert clock.rate == Fraction(30000, 1001)
    assert clock.frames_in(Fraction(1001, 1000)) == 30
    assert clock.frames_in(Fraction(1001001, 1000000)) == 31
    assert clock.nearest(1.0, 99) == 30
    assert [MODEL_CLOCK.nearest(k / 25, 999) for k in range(500)] == list(range(500))


@pytest.mark.parametrize("rate", ["25", "24000/1001", "24", "30000/1001", "30", "50", "60000/1001", "60"])
def test_feature_rows_are_those_nearest_in_time(rate: str) -> None:
    clock = FrameClock.at_rate(Fraction(rate))
    frames = range(-40, 4000)
    expected = [(50 * k / Fraction(rate) + Fraction(1, 2)).__floor__() for k in frames]
    assert clock.nearest_units(frames, 50).tolist() == expected
    since = [(50 * (k - 7) / Fraction(rate) + Fraction(1, 2)).__floor__() for k in frames]
    assert clock.nearest_units(frames, 50, 7).tolist() == since
    if rate == "25":
        assert expected == [2 * k for k in frames]


def test_times_of_their_own() -> None:
    assert [UNEVEN.seconds(k) for k in range(5)] == [
        0,
        Fraction(1, 25),
        Fraction(1, 10),
        Fraction(11, 100),
        Fraction(1, 5),
    ]
    assert UNEVEN.rate == 20
    assert [UNEVEN.nearest(s, 4) for s in (0, 0.019, 0.021, 0.08, 0.104, 0.106, 0.19, 9)] == [0, 0, 1, 2, 2, 3, 4, 4]
    assert [UNEVEN.nearest(s, 9) for s in (0.2, 0.22, 0.23, 0.3, 9)] == [4, 4, 5, 6, 9]
    assert [UNEVEN.frames_in(Fraction(s, 1000)) for s in (1, 40, 41, 110, 111)] == [1, 1, 2, 3, 4]
    order = np.array([2, 3, 3, 0])
    shown = UNEVEN.shown(order)
    assert shown.starts is not None
    assert shown.starts.tolist() == [0, 10, 100, 190, 230]
    assert UNEVEN.nearest_units(range(5), 50).tolist() == [0, 2, 5, 6, 10]


def test_rates_as_they_are_written() -> None:
    expected = {
        "25": 25,
        25: 25,
        "29.97": Fraction(30000, 1001),
        23.976: Fraction(24000, 1001),
        "59.94": Fraction(60000, 1001),
        "30000/1001": Fraction(30000, 1001),
        12.5: Fraction(25, 2),
        30: 30,
    }
    assert {given: FootageOptions(fps=given).rate for given in expected} == expected
    assert FootageOptions(fps="source").rate is None
    for wrong in ("fast", 0, 241, -25, True, "1/0", float("nan"), None):
        with pytest.raises(UsageError, match=r"fps is .*; give source, or frames a second from 1 to 240"):
            FootageOptions(fps=wrong)
