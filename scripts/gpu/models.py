"""Random checkpoints and bundles for the stages, made once and kept in the report's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision

__all__ = ["checkpoint_of", "exported"]


def checkpoint_of(folder: Path, size: str, resolution: int) -> Path:
    """A seeded random checkpoint."""
    from lsx.models.random_checkpoint import random_checkpoint

    path = folder / "work" / f"checkpoint-{size}-{resolution}"
    if not path.exists():
        making = path.with_name(f".{path.name}")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        random_checkpoint(making, size=size, resolution=resolution)
        making.rename(path)
    return path


def exported(folder: Path, size: str, resolution: int, precision: Precision) -> Bundle:
    """Its bundle, without plans at first."""
    from lsx.export.exporter import export_bundle
    from lsx.models.checkpoint import Checkpoint, CheckpointFiles

    path = folder / "work" / f"bundle-{size}-{resolution}-{precision}"
    if not path.exists():
        source = checkpoint_of(folder, size, resolution)
        export_bundle(Checkpoint(CheckpointFiles.in_folder(source)), path, precision=precision)
    return Bundle.open(path)
