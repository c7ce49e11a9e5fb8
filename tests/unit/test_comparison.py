"""Original and result in one picture, pixel by pixel."""

from __future__ import annotations

import numpy as np

from lsx.media.comparison import LAYOUTS

RNG = np.random.default_rng(0)
ORIGINAL, RESULT = (RNG.integers(0, 256, (20, 40, 3), dtype=np.uint8) for _ in range(2))


def test_sizes_are_as_said_and_inputs_stay() -> None:
    before = ORIGINAL.copy(), RESULT.copy()
    for layout in LAYOUTS.values():
        for number in range(0, 120, 7):
            picture = layout.draw(ORIGINAL, RESULT, number)
            assert picture.shape == (20 * layout.down, 40 * layout.across, 3)
            assert picture.dtype == np.uint8
    assert np.array_equal(ORIGINAL, before[0])
    assert np.array_equal(RESULT, before[1])


def test_side_and_stack() -> None:
    side, stack = (LAYOUTS[name].draw(ORIGINAL, RESULT, 3) for name in ("side", "stack"))
    for first, second in ((side[:, :40], side[:, 40:]), (stack[:20], stack[20:])):
        assert np.array_equal(first, ORIGINAL)
        assert np.array_equal(second, RESULT)


def test_a_wipe_goes_across_and_back() -> None:
    places = []
    for number in range(101):
        picture = LAYOUTS["wipe"].draw(ORIGINAL, RESULT, number)
        shown = (picture == RESULT).all(axis=(0, 2))
        place = 40 - int(np.argmin(shown[::-1])) if not shown.all() else 0
        places.append(place)
        assert np.array_equal(picture[:, : max(place - 3, 0)], ORIGINAL[:, : max(place - 3, 0)])
    assert places[0] == places[100] == 0
    assert places[50] == 40
    assert places[25] == places[75] == 20


def test_the_difference_is_fourfold() -> None:
    picture = LAYOUTS["difference"].draw(ORIGINAL, RESULT, 0)
    assert np.array_equal(picture, np.minimum(4 * np.abs(ORIGINAL.astype(int) - RESULT.astype(int)), 255))
    assert not LAYOUTS["difference"].draw(ORIGINAL, ORIGINAL, 0).any()
