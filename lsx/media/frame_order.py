"""The order in which frames are asked for: numbers that rise, fall and come again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import described
from lsx.errors import UsageError

__all__ = ["frame_numbers", "stretches"]


def frame_numbers(indices: Any) -> NDArray[np.int64]:
    """Frame numbers that a caller gives, of one axis. Raises UsageError."""
    wrong = UsageError(f"indices is {described(indices)}; give whole numbers of frames, int64 [frames]")
    try:
        numbers = np.asarray(indices)
    except ValueError as error:
        raise wrong from error
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise wrong
    return numbers.astype(np.int64, copy=False)


def stretches(indices: NDArray[np.int64]) -> Iterator[tuple[bool, NDArray[np.int64]]]:
    """`indices` cut where they turn: (whether it falls, the stretch)."""
    start = 0
    steps = np.sign(np.diff(indices))
    while start < len(indices):
        ahead = steps[start:]
        moved = np.flatnonzero(ahead)
        falls = bool(len(moved) and ahead[moved[0]] < 0)
        turned = np.flatnonzero(ahead == (1 if falls else -1))
        stop = start + (int(turned[0]) + 1 if len(turned) else len(indices) - start)
        yield falls, indices[start:stop]
        start = stop
