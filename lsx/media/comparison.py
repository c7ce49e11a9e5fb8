"""Original and result in one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lsx.core.tensors import Frame

__all__ = ["LAYOUTS", "Layout"]

_SWEEP = 100  # frames in which a wipe goes across and back
_LINE = 3  # pixels between the halves of a wipe
_GAIN = 4  # by which differences are enlarged


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A way of showing both."""

    across: int
    """Width of the picture, in frames."""
    down: int
    """Height, in frames."""
    draw: Callable[[Frame, Frame, int], Frame]
    """Original, result, number of the frame; to a new picture."""


def _wipe(original: Frame, result: Frame, number: int) -> Frame:
    """The original left of a line, the result right of it; the line goes across in two seconds, and back."""
    width = original.shape[1]
    phase = number % _SWEEP / _SWEEP
    place = round(width * (2 * phase if phase < 0.5 else 2 - 2 * phase))
    picture = result.copy()
    picture[:, :place] = original[:, :place]
    picture[:, max(place - _LINE, 0) : place] = 255
    return picture


def _difference(original: Frame, result: Frame, _: int) -> Frame:
    """How far every level is off, fourfold."""
    apart = np.abs(original.astype(np.int16) - result)
    return np.asarray(np.minimum(_GAIN * apart, 255), dtype=np.uint8)


LAYOUTS: Mapping[str, Layout] = {
    "side": Layout(across=2, down=1, draw=lambda original, result, _: np.concatenate([original, result], axis=1)),
    "stack": Layout(across=1, down=2, draw=lambda original, result, _: np.concatenate([original, result], axis=0)),
    "wipe": Layout(across=1, down=1, draw=_wipe),
    "difference": Layout(across=1, down=1, draw=_difference),
}
"""Layouts by name."""
