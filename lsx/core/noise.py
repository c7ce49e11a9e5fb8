"""Seeded normal numbers that any implementation can draw again without a framework.

Each array depends on its name, shape and seed alone, not on the order in which arrays are drawn, so the noise
of chunk 7 is the same whether or not chunks 0 to 6 were made.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["named_noise"]


def named_noise(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Standard normal numbers for `name`: float32 of `shape`.

    NumPy's Philox generator, keyed by (seed, CRC-32 of the name's UTF-8 bytes).
    """
    key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    return generator.standard_normal(shape, dtype=np.float32)
