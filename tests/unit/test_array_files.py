"""Arrays in files: read back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lsx.core.array_files import read_arrays, write_arrays
from lsx.errors import OutputError


def test_what_is_whole_comes_back_and_nothing_else(tmp_path: Path) -> None:
    arrays = {"a.b": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 4), np.int64)}
    write_arrays(tmp_path / "x.npz", arrays)
    found = read_arrays(tmp_path / "x.npz")
    assert found is not None
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }
    content = (tmp_path / "x.npz").read_bytes()
    for stop in (0, 1, len(content) // 2, len(content) - 1):
        (tmp_path / "x.npz").write_bytes(content[:stop])
        assert read_arrays(tmp_path / "x.npz") is None
    assert read_arrays(tmp_path / "other.npz") is None
    with pytest.raises(OutputError, match="cannot be written"):
        write_arrays(tmp_path / "no" / "x.npz", arrays)
