"""Pictures in rows with a caption under each, as one PNG: what a workflow kept, at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.errors import OutputError

__all__ = ["TILE", "captioned", "png_of", "sheet_of"]

TILE = 160
"""Pixels of a side of a picture on a sheet."""

_LINE, _GAP = 15, 8  # pixels
_WHITE = (255, 255, 255)


def captioned(picture: Frame, *lines: str) -> Frame:
    """A picture uint8 [n, n, 3] RGB in the sheet's size, with lines of text under it."""
    tile = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA)
    tile = cv2.copyMakeBorder(tile, 0, 6 + _LINE * len(lines), 0, _GAP, cv2.BORDER_CONSTANT, value=_WHITE)
    for line, text in enumerate(lines):
        place = (2, TILE + 14 + _LINE * line)
        cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1)
    return np.asarray(tile, dtype=np.uint8)


def sheet_of(tiles: Sequence[Frame], columns: int) -> NDArray[np.uint8]:
    """Tiles of one size in rows of `columns`; a last row that is short is filled with white."""
    rows = []
    for start in range(0, len(tiles), columns):
        row = list(tiles[start : start + columns])
        if len(tiles) > columns:
            row += [np.full_like(tiles[0], 255)] * (columns - len(row))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows, axis=0)


def png_of(picture: Frame) -> bytes:
    """An RGB picture as PNG. Raises OutputError."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OutputError("the contact sheet could not be encoded as PNG")
    return bytes(data)
