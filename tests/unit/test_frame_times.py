"""The clock of a file's own frames: an even rate, rounded as containers do, or times of their own."""

from __future__ import annotations

from fractions import Fraction

import pytest

from lsx.media.frame_times import own_clock

MILLISECOND = Fraction(1, 1000)


def rounded(rate: Fraction, count: int, tick: Fraction) -> list[Fraction]:
    """The times of `count` frames, rounded to whole ticks."""
    return [round(number / rate / tick) * tick for number in range(count)]


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "50", "60000/1001", "120000/1001", "10"])
def test_an_even_rate_rounded_to_milliseconds_is_found_again(rate: str) -> None:
    exact = Fraction(rate)
    clock = own_clock(rounded(exact, 200, MILLISECOND), round(1000 / exact) * MILLISECOND)
    assert clock.starts is None
    assert clock.rate == exact


def test_a_rate_that_is_not_usual_is_even_all_the_same() -> None:
    """Three frames in 0.1 s, and none of the usual rates within a second of the clip's length."""
    exact = Fraction(37)
    clock = own_clock([number / exact for number in range(370)], 1 / exact)
    assert (clock.starts, clock.rate) == (None, exact)


def test_a_single_frame_lasts_as_long_as_it_says() -> None:
    assert own_clock([Fraction(0)], Fraction(1, 25)).rate == 25


def test_uneven_times_are_kept_in_ticks_of_a_90000th() -> None:
    times = [Fraction(0), Fraction(1, 25), Fraction(73, 1000), Fraction(140, 1000)]
    clock = own_clock(times, Fraction(1, 25))
    assert clock.tick == Fraction(1, 90_000)
    assert clock.starts is not None
    assert clock.starts.tolist() == [0, 3600, 6570, 12_600, 16_200]
    assert [clock.seconds(number) for number in range(4)] == times
    assert clock.rate == 4 / Fraction(180, 1000)


@pytest.mark.parametrize(("off", "even"), [(Fraction(1, 1000), True), (Fraction(2, 1000), False)])
def test_one_frame_that_is_late_by_more_than_containers_round_makes_it_uneven(off: Fraction, even: bool) -> None:
    times = [Fraction(number, 25) for number in range(50)]
    times[20] += off
    assert (own_clock(times, Fraction(1, 25)).starts is None) == even
