"""Dithering: means over 8 x 8 pixels are exact, and what eight bits hold stays as it is."""

from __future__ import annotations

import numpy as np

from lsx.media.dithering import dithered


def test_dithering_keeps_the_mean() -> None:
    for level in (0, 1000, 12345, 65280):
        picture = np.full((16, 16, 3), level, np.uint16)
        made = dithered(picture)
        assert made.dtype == np.uint8
        assert abs(made.mean() - level / 256) <= 1 / 128
        assert int(made.max()) - int(made.min()) <= 1


def test_dithering_keeps_what_eight_bits_hold() -> None:
    """Values that eight bits have stay as they are; all others are the one below or above, in proportion."""
    levels = np.arange(256, dtype=np.uint16)
    picture = np.tile(levels[:, None, None] * 256, (1, 16, 3))
    np.testing.assert_array_equal(dithered(picture), np.tile(levels[:, None, None], (1, 16, 3)))
    for value in (0, 1, 100, 128, 12_345, 40_000, 65_279, 65_280):
        block = dithered(np.full((8, 8, 1), value, np.uint16))
        assert abs(block.mean() - value / 256) <= 1 / 128
        assert block.max() - block.min() <= 1
    assert (dithered(np.full((8, 8, 1), 65_535, np.uint16)) == 255).all()  # FFmpeg overshoots white
