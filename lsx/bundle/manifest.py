"""manifest.json as values: what a bundle says of itself, each file with its hash."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from lsx.core.atomic_files import sha256_of
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import Sampler, SamplingOptions
from lsx.core.tensors import Dtype, Precision, TensorSpec

__all__ = [
    "FORMS",
    "MANIFEST",
    "SCHEMA_VERSION",
    "Entry",
    "FaceModels",
    "FileEntry",
    "Form",
    "GraphEntry",
    "Manifest",
    "ModelEntry",
    "ParityEntry",
    "PlanEntry",
    "ProfileEntry",
    "QuantizationEntry",
    "StudentEntry",
    "TensorEntry",
    "VerificationRecord",
]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Form = Literal["file", "onnxruntime", "onnxruntime_cuda"]
"""A graph's ONNX files by GraphEntry's names: as traced, and rewritten for ONNX Runtime's CPU and CUDA providers."""
FORMS: tuple[Form, ...] = get_args(Form)


class Entry(BaseModel):
    """A part of a JSON file that lsx writes: immutable, and without unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class FileEntry(Entry):
    """A file of the bundle. path : relative to the bundle; size in bytes."""

    path: str
    sha256: str
    size: int

    @classmethod
    def of(cls, folder: Path, path: str) -> FileEntry:
        """The entry of the file that is at `path` in `folder`. Raises OSError."""
        full = folder / path
        return cls(path=path, sha256=sha256_of(full), size=full.stat().st_size)


class TensorEntry(Entry):
    """One I/O tensor; a string in `shape` names an axis that varies."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]

    def spec(self) -> TensorSpec:
        """The same as a TensorSpec."""
        return TensorSpec(name=self.name, dtype=self.dtype, shape=self.shape)


class ParityEntry(Entry):
    """What the export measured for one output: how, against what, and the limits. Errors in the output's own unit.

    Bundles of lsx 0.1.0 have the first five and a limit of the largest error alone.
    """

    output: str
    method: str
    max_error: float
    mean_error: float
    cosine: float
    tolerance_max: float
    high_error: float | None = None
    """The 99.99th percentile."""
    psnr: float | None = None
    """PSNR in dB, against the range of what is expected; 999 where nothing differs."""
    spread: float | None = None
    """Standard deviation of what is expected."""
    tolerance_mean: float | None = None
    tolerance_high: float | None = None
    tolerance_cosine: float | None = None


class GraphEntry(Entry):
    """One ONNX graph and the data files that it refers to."""

    file: FileEntry
    data: tuple[str, ...] = ()
    """Paths of its external data files, relative to the bundle; two graphs may share one."""
    onnxruntime: FileEntry | None = None
    """The same graph in the form that ONNX Runtime's CPU provider computes best, over the same data; None: `file`."""
    onnxruntime_cuda: FileEntry | None = None
    """The same for its CUDA provider."""
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
    """Share of the FLOPs of convolutions and linear layers that is quantized; None in a graph that is not."""

    def in_form(self, form: Form) -> FileEntry:
        """The graph's file in `form`, or as traced where it has no such form."""
        own: FileEntry | None = getattr(self, form)
        return self.file if own is None else own


ProfileEntry = dict[str, tuple[int, int, int]]
"""Lowest, best and highest length of each axis that varies. Where a graph's only profile has one length, its shapes
are static in the plan."""


class GpuEntry(Entry):
    """The GPU that a plan was built on."""

    name: str
    multiprocessors: int
    memory: int
    """Bytes."""


class PlanEntry(Entry):
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
    layers: FileEntry | None = None
    """The plan's layers as its builder told them, compressed: see engines/tensorrt/layer_table.py."""
    gpu: GpuEntry | None = None
    """The GPU, where the plan was built on the one that it is for; None for plans that were built ahead of time."""


class ModelEntry(Entry):
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
    """SHA-256 of every file of the checkpoint, by its component."""
    source: str
    """The checkpoint's place at export: a hint for the torch backend, never needed to run."""
    mask: str
    """`released outline`, or the mask file's name."""

    def spec(self) -> ModelSpec:
        """The same as a ModelSpec."""
        return ModelSpec(**{field.name: getattr(self, field.name) for field in fields(ModelSpec)})


class FaceModels(Entry):
    """The face models that the bundle carries."""

    family: Literal["mediapipe", "insightface"]
    source: dict[str, str]
    """SHA-256 of the files that the graphs were made from, by name."""


class QuantizationEntry(Entry):
    """How an int8 or fp8 bundle was quantized."""

    calibration: str
    """SHA-256 of the calibration's manifest."""
    method: str
    """How the ranges of activations were found."""
    files: tuple[FileEntry, ...]
    """Tables and pictures of layers, coverage and sensitivity."""


class StudentEntry(Entry):
    """How a student is sampled, whose checkpoint `lsx distill` made: what it was made for, and of what."""

    steps: int
    guidance: float
    sampler: Sampler
    cache_interval: int | None
    timesteps: tuple[int, ...]
    teacher: str
    """SHA-256 of the first teacher's U-Net."""
    teacher_guidance: float
    """The guidance scale that was folded in."""

    def options(self) -> SamplingOptions:
        """The same as SamplingOptions. Raises UsageError for what they refuse."""
        return SamplingOptions(
            steps=self.steps, guidance=self.guidance, sampler=self.sampler, cache_interval=self.cache_interval
        )


class VerificationRecord(Entry):
    """What `lsx verify` proved. It covers exactly these files: it is void for any other."""

    backend: str
    lsx_version: str
    created: str
    engine: str
    """The engines' own description: library, version, device."""
    files: dict[str, str]
    """SHA-256 of every file that the backend loaded, by path in the bundle."""
    checkpoint: dict[str, str]
    """SHA-256 of every file of the reference, by its component."""
    inputs: dict[str, str]
    """SHA-256 of the clip's files, by name; empty for seeded inputs."""
    options: dict[str, str]
    thresholds: dict[str, float]
    figures: dict[str, float]


class Manifest(Entry):
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
    quantization: QuantizationEntry | None = Field(default=None, alias="quantisation")
    records: tuple[VerificationRecord, ...] = Field(default=(), alias="stamps")
    """What was verified, one a backend; the newest last."""
    student: StudentEntry | None = None
    """What a student's checkpoint says of itself; None for a model that was not distilled."""
    fallback: Literal["fallback"] | None = None
    """Folder of the same model's bundle in a wider precision, for chunks that overflow in this one."""

    def text(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"
