"""A contact sheet of tiny faces: python -m examples.tiny.sheet -o sheet.png."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.tiny.face import Identity, render

__all__ = ["sheet"]

_MOUTHS = ((0.0, 0.5), (0.25, 0.2), (0.5, 0.9), (0.75, 0.1), (1.0, 0.5), (1.0, 1.0))


def sheet(seeds: range, size: int = 192) -> NDArray[np.uint8]:
    """One row an identity, one column a mouth (opening, width): uint8 [rows * size, 6 * size, 3]."""
    rows = [
        np.concatenate([render(identity, *mouth, size=(size, size)) for mouth in _MOUTHS], axis=1)
        for identity in map(Identity.from_seed, seeds)
    ]
    return np.concatenate(rows)


def main() -> None:
    """Write the sheet as a picture file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", default="sheet.png", help="picture file to write")
    parser.add_argument("--identities", type=int, default=6, help="rows")
    parser.add_argument("--first", type=int, default=0, help="seed of the first identity")
    parser.add_argument("--size", type=int, default=192, help="pixels of one face")
    options = parser.parse_args()
    picture = sheet(range(options.first, options.first + options.identities), options.size)
    cv2.imwrite(options.output, picture[..., ::-1])


if __name__ == "__main__":
    main()
