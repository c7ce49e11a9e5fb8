"""TensorRT-RTX's compiled kernels are kept whole, when warm and when closed. On a stub of its cache: it needs a GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from lsx.engines.tensorrt import loaded_plan as module
from lsx.engines.tensorrt.loaded_plan import LoadedPlan


class Cache:
    """What `IRuntimeCache` is to a loaded plan."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content

    def serialize(self) -> bytes | None:
        return self.content


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "kernels" / "step.bin"
    monkeypatch.setattr(module, "kernel_cache_file", lambda *_: file)
    return file


def _engine(content: bytes | None, *, fits: bool = False) -> LoadedPlan:
    made: Any = LoadedPlan.__new__(LoadedPlan)
    made._device = type("Device", (), {"lock": threading.Lock()})()
    made._library = made._plan = None
    made._cache, made._cache_fits = Cache(content), fits
    return made  # type: ignore[no-any-return]


def test_kernels_are_kept_when_warm(kept: Path) -> None:
    _engine(b"compiled").keep_kernels()
    assert kept.read_bytes() == b"compiled"
    assert [file.name for file in kept.parent.iterdir()] == ["step.bin"]


def test_fewer_kernels_do_not_replace_more(kept: Path) -> None:
    _engine(b"compiled, all of them").keep_kernels()
    _engine(b"some", fits=True).keep_kernels()
    assert kept.read_bytes() == b"compiled, all of them"
    _engine(b"of another driver", fits=False).keep_kernels()
    assert kept.read_bytes() == b"of another driver"


def test_a_cache_that_gives_nothing_is_no_error(kept: Path) -> None:
    _engine(None).keep_kernels()
    assert not kept.exists()


def test_a_folder_that_cannot_be_written_is_no_error(kept: Path) -> None:
    kept.parent.write_text("a file where the folder goes")
    _engine(b"compiled").keep_kernels()
