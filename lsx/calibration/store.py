"""The calibration folder: a manifest and recorded feeds as safetensors, all hashed. Nothing in it depends on time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lsx.bundle.manifest import Entry
from lsx.core.atomic_files import sha256_of
from lsx.engines.engine import Array
from lsx.errors import CalibrationError

__all__ = ["MANIFEST", "Calibration", "CalibrationManifest", "ClipEntry", "FeedEntry", "SegmentEntry"]

MANIFEST = "calibration.json"
_SCHEMA = 1


class SegmentEntry(Entry):
    """Seconds start..stop of a clip, the median height of its face in pixels, and why it was dropped, if it was."""

    start: float
    stop: float
    face: int
    reason: str | None


class ClipEntry(Entry):
    """One file that was looked at."""

    name: str
    sha256: str
    seconds: float
    reason: str | None
    """Why the whole file was skipped, if it was."""
    segments: tuple[SegmentEntry, ...]


class FeedEntry(Entry):
    """The inputs of one forward of one graph, guidance batch 1."""

    file: str
    sha256: str
    graph: str
    clip: str
    frame: int
    """First of the chunk's frames, at 25 a second."""
    step: int
    """Denoising step, from 0; the number of steps for the VAE decoder."""
    half: Literal["conditional", "unconditional", "none"]
    """Guidance half."""


class CalibrationManifest(Entry):
    """calibration.json."""

    schema_version: int
    lsx_version: str
    seed: int
    samples: int = Field(alias="calls")
    steps: int
    guidance: float
    cache_interval: int | None
    version: str
    resolution: int
    frames: int
    checkpoint: dict[str, str]
    """SHA-256 of every file of the checkpoint whose loop was recorded, by its component."""
    clips: tuple[ClipEntry, ...]
    feeds: tuple[FeedEntry, ...]

    def text(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"


class Calibration:
    """An opened calibration folder. Open one with `Calibration.open(path)`."""

    def __init__(self, path: Path, manifest: CalibrationManifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str) -> Calibration:
        """Raises CalibrationError when there is none, or another lsx wrote it."""
        path = Path(path)
        file = path / MANIFEST
        remedy = f"Make one: lsx calibrate BUNDLE --clips VIDEOS -o {path}"
        if not file.is_file():
            raise CalibrationError(f"{path}: no calibration ({MANIFEST} is not there). {remedy}")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("schema_version") != _SCHEMA:
                raise CalibrationError(f"{path}: not of the schema that this lsx reads ({_SCHEMA}). {remedy}")
            return cls(path, CalibrationManifest.model_validate(content))
        except (OSError, ValueError, ValidationError) as error:
            raise CalibrationError(f"{file}: damaged ({str(error).splitlines()[0]}). {remedy}") from error

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds the hashes of all feeds."""
        return sha256_of(self.path / MANIFEST)

    def entries(self, graph: str) -> list[FeedEntry]:
        """The feeds of one graph."""
        return [entry for entry in self.manifest.feeds if entry.graph == graph]

    def feeds(self, graph: str) -> Iterator[dict[str, Array]]:
        """The inputs of every recorded forward of `graph`, float32 or uint8.

        Raises CalibrationError for a file that is missing or another than the manifest's."""
        for entry in self.entries(graph):
            file = self.path / entry.file
            try:
                if Path(entry.file).is_absolute() or ".." in Path(entry.file).parts or sha256_of(file) != entry.sha256:
                    raise CalibrationError(f"{file}: not the file that {MANIFEST} describes. Calibrate again")
                arrays = load_file(file)
            except (OSError, SafetensorError) as error:
                raise CalibrationError(f"{file}: cannot be read ({error}). Calibrate again") from error
            yield {
                name: array if array.dtype == np.uint8 else array.astype(np.float32) for name, array in arrays.items()
            }
