"""Rows that are written one after another and read one by one: a safetensors file of which little is held."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lsx.errors import MediaError
from lsx.faces.rows_file import RowsReader, RowsWriter


def test_rows_are_a_safetensors_file(tmp_path: Path) -> None:
    rows = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    with RowsWriter(tmp_path / "rows.safetensors", "rows", (2, 3), "float32") as writer:
        for row in rows:
            writer.append(row)
        with pytest.raises(ValueError, match=r"uint8\[3\]"):
            writer.append(np.zeros(3, np.uint8))
    assert np.array_equal(load_file(tmp_path / "rows.safetensors")["rows"], rows)
    reader = RowsReader(tmp_path / "rows.safetensors")
    assert reader.shape == (5, 2, 3)
    for index in (4, 0, 2):
        assert np.array_equal(reader.row(index), rows[index])
    (tmp_path / "rows.safetensors").write_bytes((tmp_path / "rows.safetensors").read_bytes()[:-1])
    with pytest.raises(MediaError, match="damaged"):
        RowsReader(tmp_path / "rows.safetensors")


def test_a_long_file_is_not_held(tmp_path: Path) -> None:
    """400 MiB of rows, read through: what this process holds of them stays under 100 MiB."""
    path = tmp_path / "rows.safetensors"
    with RowsWriter(path, "rows", (2**20,), "uint8") as writer:
        for number in range(400):
            writer.append(np.full(2**20, number % 256, np.uint8))
    reader = RowsReader(path)
    before = _mapped()
    most = 0
    for number in range(400):
        assert reader.row(number)[-1] == number % 256
        most = max(most, _mapped() - before)
    assert most < 100 * 2**20


def _mapped() -> int:
    """Bytes of files in this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024


def test_bytes_are_those_of_safetensors_own_writer(tmp_path: Path) -> None:
    """The head's length, its JSON padded with spaces to 512 bytes, then the rows one behind the other."""
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    with RowsWriter(tmp_path / "rows.safetensors", "crops", (2,), "uint8") as writer:
        for row in rows:
            writer.append(row)
        assert writer.count == 3
    content = (tmp_path / "rows.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") == 504
    assert json.loads(content[8:512]) == {"crops": {"dtype": "U8", "shape": [3, 2], "data_offsets": [0, 6]}}
    assert content[512:] == rows.tobytes()


def test_a_file_that_was_not_finished_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"

    def interrupted() -> None:
        with RowsWriter(path, "rows", (2,), "float32") as writer:
            writer.append(np.zeros(2, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for wrong in (path, tmp_path / "none.safetensors"):
        with pytest.raises(MediaError, match="cannot be read, or is damaged"):
            RowsReader(wrong)


def test_a_row_is_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    with RowsWriter(path, "rows", (2,), "float32") as writer:
        writer.append(np.ones(2, np.float32))
    reader = RowsReader(path)
    reader.row(0)[:] = 7
    assert reader.row(0).tolist() == [1, 1]
