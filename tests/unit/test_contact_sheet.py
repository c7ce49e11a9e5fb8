"""Contact sheets: pictures in rows, each in its place, a caption in black under it."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.errors import OutputError
from lsx.faces.contact_sheet import TILE, captioned, png_of, sheet_of

COLOUR = (200, 30, 90)


def plain(value: int) -> NDArray[np.uint8]:
    return np.full((3, 2, 3), value, np.uint8)


@pytest.mark.parametrize("lines", [(), ("one",), ("one", "two")])
def test_a_captioned_picture(lines: tuple[str, ...]) -> None:
    tile = captioned(np.full((64, 64, 3), COLOUR, np.uint8), *lines)
    assert tile.shape == (TILE + 6 + 15 * len(lines), TILE + 8, 3)
    assert (tile[:TILE, :TILE] == COLOUR).all()
    assert (tile[:TILE, TILE:] == 255).all()
    written = np.all(tile[TILE:] < 128, axis=-1)
    ends = [6 + 15 * number for number in range(len(lines) + 1)]
    assert not written[: ends[0]].any()
    assert all(written[start:stop].any() for start, stop in pairwise(ends))


def test_a_picture_is_made_smaller_by_its_mean() -> None:
    """INTER_AREA at half the size: each pixel is the mean of four."""
    picture = np.random.default_rng(0).integers(0, 256, (2 * TILE, 2 * TILE, 3), np.uint8)
    means = picture.reshape(TILE, 2, TILE, 2, 3).mean((1, 3))
    assert np.abs(captioned(picture)[:TILE, :TILE] - means).max() <= 0.5


def test_tiles_lie_in_rows_and_a_short_last_row_is_white() -> None:
    tiles = [plain(value) for value in range(5)]
    sheet = sheet_of(tiles, 3)
    assert sheet.shape == (6, 6, 3)
    places = [[int(sheet[3 * row, 2 * column, 0]) for column in range(3)] for row in range(2)]
    assert places == [[0, 1, 2], [3, 4, 255]]
    np.testing.assert_array_equal(sheet[3:, 2:4], tiles[4])


def test_fewer_tiles_than_columns_make_a_narrow_sheet() -> None:
    assert sheet_of([plain(1), plain(2)], 6).shape == (3, 4, 3)


def test_the_png_is_the_picture() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(png_of(picture), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(decoded[..., ::-1], picture)


def test_a_picture_that_cannot_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with pytest.raises(OutputError, match="could not be encoded as PNG"):
        png_of(plain(0))
