"""Checkpoints and bundles that the tests share: made once a run, whichever worker asks first."""

from __future__ import annotations

import fcntl
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision

ARRAYS = Path(__file__).parent / "golden" / "arrays"


def pytest_collection_finish() -> None:
    """What was imported stays: no later search for dead cycles looks through it."""
    gc.collect()
    gc.freeze()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of this run, the same one for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """pytest-xdist's worker, or `master` without it."""
    workerinput = getattr(request.config, "workerinput", None)
    return "master" if workerinput is None else str(workerinput["workerid"])


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Callable[[int], Path]:
    """A seeded checkpoint at a resolution: the small one that numbers were recorded of, of few layers at 64 px."""

    def make(resolution: int = 256) -> Path:
        from lsx.models.random_checkpoint import random_checkpoint

        folder = shared / f"checkpoint-{resolution}"
        with _locked(shared / f"checkpoint-{resolution}.lock"):
            if not folder.exists():
                random_checkpoint(folder, resolution=resolution, size="minimal" if resolution == 64 else "small")
        return folder

    return make


@pytest.fixture(scope="session")
def bundle(shared: Path, checkpoint: Callable[[int], Path]) -> Callable[[Precision, int], Bundle]:
    """The small checkpoint's bundle at a precision and resolution."""

    def make(precision: Precision = "fp32", resolution: int = 128) -> Bundle:
        from lsx.export.exporter import export_bundle
        from lsx.export.options import ExportOptions
        from lsx.models.checkpoint import Checkpoint
        from lsx.models.checkpoint_files import CheckpointFiles

        name = f"bundle-{precision}-{resolution}"
        source = checkpoint(resolution)
        with _locked(shared / f"{name}.lock"):
            if not (shared / name).exists():
                loaded = Checkpoint(CheckpointFiles.in_folder(source))
                export_bundle(loaded, shared / name, ExportOptions(precision=precision))
        opened = Bundle.open(shared / name)
        assert not opened.manifest.records, "a test verified the bundle that all tests share: it must copy it first"
        return opened

    return make


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Recorded arrays of the original implementation, by file."""

    def load(name: str) -> dict[str, np.ndarray[Any, Any]]:
        with np.load(ARRAYS / f"{name}.npz") as archive:
            return dict(archive)

    return load
