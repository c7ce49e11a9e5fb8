"""Arrays of rows that come one after another, written as safetensors files while they come: none of them is held."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lsx.errors import MediaError

__all__ = ["RowsReader", "RowsWriter"]

_HEAD = 512  # bytes; how many rows there are is known when the last has come, so the head is filled in then
_MAPPED = 64 * 2**20  # bytes read of a file, after which it is mapped anew
_NAMES = {"uint8": "U8", "float32": "F32"}


class RowsWriter:
    """One array, its rows of one shape and dtype, uint8 or float32. Raises OSError as files do."""

    def __init__(self, path: Path, name: str, row: tuple[int, ...], dtype: str) -> None:
        self._name, self._row, self._dtype = name, row, np.dtype(dtype)
        self._file = path.open("wb")
        self._file.write(b"\0" * _HEAD)
        self.count = 0
        """Rows so far."""

    def append(self, row: NDArray[Any]) -> None:
        """Write the next row."""
        if row.shape != self._row or row.dtype != self._dtype:
            raise ValueError(f"a row is {row.dtype}{list(row.shape)}, and not {self._dtype}{list(self._row)}")
        self._file.write(np.ascontiguousarray(row).tobytes())
        self.count += 1

    def close(self) -> None:
        """Fill in the head."""
        with self._file:
            size = self.count * int(np.prod(self._row)) * self._dtype.itemsize
            entry = {"dtype": _NAMES[self._dtype.name], "shape": [self.count, *self._row], "data_offsets": [0, size]}
            text = json.dumps({self._name: entry}).encode().ljust(_HEAD - 8)
            self._file.seek(0)
            self._file.write(len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class RowsReader:
    """The only array of a safetensors file, a row at a time.

    The file is mapped, so that processes share what they read of it; now and then it is mapped anew, so that this
    process does not hold all that it ever read.
    """

    def __init__(self, path: Path) -> None:
        """Raises MediaError for what is no such file."""
        self._path = path
        self._map()
        self.shape = tuple(self._rows.get_shape())
        """Rows, and what each of them has."""

    def _map(self) -> None:
        self._read = 0
        try:
            self._file = cast("Any", safe_open(str(self._path), framework="numpy"))
            (name,) = self._file.keys()
            self._rows = self._file.get_slice(name)
        except (SafetensorError, OSError, ValueError) as error:
            raise MediaError(f"{self._path}: cannot be read, or is damaged: {error}") from error

    def row(self, index: int) -> NDArray[Any]:
        """A copy of one row."""
        row: NDArray[Any] = self._rows[index : index + 1][0]
        self._read += row.nbytes
        if self._read > _MAPPED:
            self._map()
        return row
