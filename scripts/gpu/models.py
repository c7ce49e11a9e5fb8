"""Random checkpoints and bundles for the stages, made once and kept in the report's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from scripts.gpu.checks import Checks
from scripts.gpu.stage import Settings

__all__ = ["bundles_of", "checkpoint_of", "exported"]


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
    from lsx.export.options import ExportOptions
    from lsx.models.checkpoint import Checkpoint
    from lsx.models.checkpoint_files import CheckpointFiles

    path = folder / "work" / f"bundle-{size}-{resolution}-{precision}"
    if not path.exists():
        source = checkpoint_of(folder, size, resolution)
        export_bundle(Checkpoint(CheckpointFiles.in_folder(source)), path, ExportOptions(precision=precision))
    return Bundle.open(path)


def bundles_of(checks: Checks, settings: Settings) -> Iterator[tuple[str, Bundle, Path]]:
    """(name, fp16 bundle, its checkpoint) at each resolution; one that cannot be made is recorded and left out."""
    for resolution in settings.resolutions:
        name = f"{settings.size}, {resolution} px"
        bundle = checks.run(f"bundle, {name}", exported, settings.folder, settings.size, resolution, "fp16")
        if bundle is not None:
            yield name, bundle, checkpoint_of(settings.folder, settings.size, resolution)
