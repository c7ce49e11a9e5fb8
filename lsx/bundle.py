"""The bundle: a folder with a manifest, ONNX graphs and plans, all hashed. Reading it executes nothing."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lsx.errors import BundleError, IntegrityError, OutputError, SchemaMismatch
from lsx.specs import Dtype, ModelSpec, Precision, TensorSpec

if TYPE_CHECKING:
    from lsx.engines.engine import Engine

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "Bundle",
    "FaceModels",
    "FileEntry",
    "GraphEntry",
    "Manifest",
    "ModelEntry",
    "ParityEntry",
    "PlanEntry",
    "ProfileEntry",
    "QuantisationEntry",
    "StampEntry",
    "TensorEntry",
    "sha256_of",
    "write_whole",
]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Entry):
    """A file of the bundle. path : relative to the bundle; size in bytes."""

    path: str
    sha256: str
    size: int


class TensorEntry(_Entry):
    """One I/O tensor; a string in `shape` names an axis that varies."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]

    def spec(self) -> TensorSpec:
        """As a TensorSpec."""
        return TensorSpec(name=self.name, dtype=self.dtype, shape=self.shape)


class ParityEntry(_Entry):
    """What the export measured for one output: how, against what, and within which tolerance."""

    output: str
    method: str
    max_error: float
    mean_error: float
    cosine: float
    tolerance_max: float


class GraphEntry(_Entry):
    """One ONNX graph and the data files that it refers to."""

    file: FileEntry
    data: tuple[str, ...] = ()
    """Paths of its external data files, relative to the bundle; two graphs may share one."""
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    precision: Precision
    opset: int
    operators: dict[str, int]
    """Operator histogram."""
    islands: tuple[str, ...] = ()
    """Modules that stay float32 in a graph of lower precision, with the reason."""
    parity: tuple[ParityEntry, ...] = ()
    coverage: float | None = None
    """Share of the FLOPs of convolutions and linear layers that is quantised; None in a graph that is not."""


ProfileEntry = dict[str, tuple[int, int, int]]
"""Lowest, best and highest length of each axis that varies. Where a graph's only profile has one length, its shapes
are static in the plan."""


class PlanEntry(_Entry):
    """One TensorRT plan, and all that it was built from."""

    graph: str
    precision: Precision
    file: FileEntry
    backend: str
    library_version: str
    target: str
    """`sm89` and the like, or `portable`: see engines/tensorrt/libraries.py."""
    key: str
    """SHA-256 of graph, weights, profiles, options, library version and target."""
    onnx: tuple[str, ...]
    """SHA-256 of the graph and of the files with its weights."""
    profiles: tuple[ProfileEntry, ...]
    options: dict[str, str] = Field(default_factory=dict)
    seconds: float
    """Time that building took."""
    peak_bytes: int
    """Memory of the building process at its highest."""


class ModelEntry(_Entry):
    """The model that the bundle was made from."""

    version: str
    resolution: int
    frames: int
    video_fps: int
    sample_rate: int
    audio_window: tuple[int, int]
    audio_states: int
    audio_dim: int
    max_frames: int
    checkpoint: dict[str, str]
    """SHA-256 of every file of the checkpoint, by its part."""
    source: str
    """Where the checkpoint stood at export: a hint for the torch backend, never needed to run."""
    mask: str
    """`released outline`, or the mask file's name."""

    def spec(self) -> ModelSpec:
        """As a ModelSpec."""
        return ModelSpec(
            version=self.version,
            resolution=self.resolution,
            frames=self.frames,
            video_fps=self.video_fps,
            sample_rate=self.sample_rate,
            audio_window=self.audio_window,
            audio_states=self.audio_states,
            audio_dim=self.audio_dim,
            max_frames=self.max_frames,
        )


class FaceModels(_Entry):
    """Which face models the bundle carries."""

    family: Literal["mediapipe", "insightface"]
    source: dict[str, str]
    """SHA-256 of the files that the graphs were made from, by name."""


class QuantisationEntry(_Entry):
    """How an int8 or fp8 bundle was quantised."""

    calibration: str
    """SHA-256 of the calibration's manifest."""
    method: str
    """How the ranges of activations were found."""
    files: tuple[FileEntry, ...]
    """Tables and pictures of layers, coverage and sensitivity."""


class StampEntry(_Entry):
    """What `lsx verify` proved. It covers exactly these files: it is void for any other."""

    backend: str
    lsx_version: str
    created: str
    engine: str
    """The engines' own description: library, version, device."""
    files: dict[str, str]
    """SHA-256 of every file that the backend loaded, by path in the bundle."""
    checkpoint: dict[str, str]
    """SHA-256 of every file of the reference, by its part."""
    inputs: dict[str, str]
    """SHA-256 of the clip's files, by name; empty for seeded inputs."""
    options: dict[str, str]
    thresholds: dict[str, float]
    figures: dict[str, float]


class Manifest(_Entry):
    """manifest.json."""

    schema_version: int
    lsx_version: str
    created: str
    precision: Precision
    model: ModelEntry
    faces: FaceModels
    graphs: dict[str, GraphEntry]
    data: tuple[FileEntry, ...] = ()
    """The external data files of all graphs."""
    plans: tuple[PlanEntry, ...] = ()
    quantisation: QuantisationEntry | None = None
    stamps: tuple[StampEntry, ...] = ()
    """What was verified, one a backend; the newest last."""
    fallback: Literal["fallback"] | None = None
    """Folder of the same model's bundle in a wider precision, for calls that overflow in this one."""

    def text(self) -> str:
        """As the file's content."""
        return self.model_dump_json(indent=1) + "\n"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the target and rename: the old file or the new one is there, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Bundle:
    """An opened bundle. Opening reads the manifest; a graph's files are hashed when its engine is asked for.

    Open one with `Bundle.open(path)`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.model = manifest.model.spec()
        self._intact: set[str] = set()

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open the bundle in the folder `path`.

        Raises BundleError when it is none, SchemaMismatch when another lsx wrote it.
        """
        path = Path(path)
        file = path / MANIFEST
        if not path.is_dir() or not file.is_file():
            missing = f"no {MANIFEST} in it" if path.is_dir() else "no such folder"
            raise BundleError(f"{path}: not a bundle ({missing}). Make one: lsx export CHECKPOINT -o {path}")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{file}: not a manifest ({error}). Export again: lsx export CHECKPOINT -o {path}"
            ) from error
        if version != SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{path}: bundle schema {version}, but this lsx reads {SCHEMA_VERSION}. "
                f"Export again: lsx export CHECKPOINT -o {path}"
            )
        try:
            return cls(path, Manifest.model_validate(content))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BundleError(
                f"{file}: {where}: {first['msg']}. Export again: lsx export CHECKPOINT -o {path}"
            ) from error

    def fallback(self) -> Bundle | None:
        """The bundle inside this one that calls are done again with when they overflow. Raises BundleError."""
        return None if self.manifest.fallback is None else Bundle.open(self.path / self.manifest.fallback)

    def graph(self, name: str) -> GraphEntry:
        """The entry of the graph `name`. Raises BundleError when the bundle does not have it."""
        entry = self.manifest.graphs.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: no graph {name}; it has {', '.join(sorted(self.manifest.graphs))}")
        return entry

    def files(self, graph: str) -> list[FileEntry]:
        """The files of one graph: the .onnx and the data it refers to."""
        entry = self.graph(graph)
        data = {file.path: file for file in self.manifest.data}
        missing = [path for path in entry.data if path not in data]
        if missing:
            raise BundleError(f"{self.path}: the manifest names no hash for {missing[0]}. Export again")
        return [entry.file, *(data[path] for path in entry.data)]

    def add_plan(self, plan: PlanEntry) -> None:
        """Enter `plan` in the manifest, in place of one of the same file. Raises OutputError."""
        newest = Bundle.open(self.path).manifest  # another build may have written since
        plans = [other for other in newest.plans if other.file.path != plan.file.path]
        self._write(newest.model_copy(update={"plans": (*plans, plan)}))
        self._intact.discard(plan.file.path)

    def add_stamp(self, stamp: StampEntry) -> None:
        """Enter `stamp` in the manifest, in place of the same backend's for the same files. Raises OutputError."""
        newest = Bundle.open(self.path).manifest
        others = [s for s in newest.stamps if (s.backend, s.files) != (stamp.backend, stamp.files)]
        self._write(newest.model_copy(update={"stamps": (*others, stamp)}))

    def _write(self, manifest: Manifest) -> None:
        try:
            write_whole(self.path / MANIFEST, manifest.text().encode())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.manifest = manifest

    def verify(self, files: list[FileEntry] | None = None) -> None:
        """Hash `files` (default: every file of the bundle), each once in this object's life.

        Raises IntegrityError naming the first that is missing or another than the manifest's.
        """
        if files is None:
            wider = self.fallback()
            if wider is not None:
                wider.verify()
            files = [file for name in self.manifest.graphs for file in self.files(name)]
            files += [plan.file for plan in self.manifest.plans]
            files += [] if self.manifest.quantisation is None else self.manifest.quantisation.files
        for file in files:
            if file.path in self._intact:
                continue
            path = self.path / file.path
            if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
                raise IntegrityError(f"{self.path}: the manifest names {file.path}, outside the bundle. Do not use it")
            if not path.is_file() or path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                fault = "is not the file that the manifest describes" if path.is_file() else "is missing"
                plan = next((plan for plan in self.manifest.plans if plan.file.path == file.path), None)
                remedy = (
                    f"Copy the bundle again, or export it again: lsx export CHECKPOINT -o {self.path}"
                    if plan is None
                    else f"Build it again: lsx build {self.path} --backend {plan.backend} --graphs {plan.graph}"
                )
                raise IntegrityError(f"{path} {fault}: the copy is damaged. {remedy}")
            self._intact.add(file.path)

    def engine(
        self,
        graph: str,
        backend: str = "onnxruntime",
        *,
        provider: str = "cpu",
        threads: int | None = None,
        reference: Path | str | None = None,
        guidance_batch: int = 2,
        trust_code: bool = False,
    ) -> Engine:
        """Load `graph` on `backend`, its files hashed first.

        provider : onnxruntime's, `cpu` or `cuda`; threads : of the CPU provider, None for $LSX_THREADS or all cores;
        reference : checkpoint folder for the torch backend, default where the export found it;
        guidance_batch : the batch to load for first, 2 with guidance, 1 without;
        trust_code : load TensorRT plans that carry code (`lsx build --version-compatible`).

        Raises IntegrityError, BackendUnavailable, EngineError.
        """
        from lsx.engines.registry import EngineOptions, backend_named

        options = EngineOptions(
            provider=provider,
            threads=threads,
            reference=None if reference is None else Path(reference),
            guidance_batch=guidance_batch,
            trust_code=trust_code,
        )
        return backend_named(backend).engine(self, graph, options)
