"""Checkpoint to bundle: each graph traced, checked against its module as it is made, and the whole written at once."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

import lsx
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    FaceModels,
    Manifest,
    ModelEntry,
    ParityEntry,
    QuantizationEntry,
    StudentEntry,
)
from lsx.bundle.writing import written_beside
from lsx.core.atomic_files import check_folder, write_whole
from lsx.core.tensors import LOW_PRECISIONS
from lsx.errors import CheckpointError, OutputError, UsageError
from lsx.export.face_models.models import FaceSource, find_face_models
from lsx.export.graph_exporter import GraphExporter
from lsx.export.options import ExportOptions
from lsx.graphs.graph_specs import GRAPHS
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE, load_syncnet
from lsx.quantization.coverage import Quantization

__all__ = ["STAGES", "export_bundle"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many stages are."""

STAGES = (*GRAPHS, "faces", "hashes")


def export_bundle(
    checkpoint: Checkpoint,
    output: Path,
    options: ExportOptions | None = None,
    *,
    quantization: Quantization | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export every graph of `checkpoint` into the bundle `output`, replacing an older bundle there.

    Each graph is checked by onnx.checker and by ONNX Runtime against its float32 module on seeded inputs. The bundle
    is written beside `output` and renamed when whole: on any failure the old one stays.

    quantization : the recipes of an int8 or fp8 bundle, see `lsx.quantization.quantize`.

    Raises UsageError, CheckpointError, ParityError, ExportError, OutputError.
    """
    options = options or ExportOptions()
    precision, fallback = options.precision, options.fallback
    if (precision in LOW_PRECISIONS) != (quantization is not None):
        raise UsageError(f"--precision {precision} and a quantization do not go together: int8 and fp8 need one")
    bundles = [(precision, Path())] + ([] if fallback is None else [(fallback, Path("fallback"))])
    total, done = len(bundles) * len(STAGES), 0

    def report(label: str, stage: int, _of: int = 0) -> None:
        if progress is not None:
            progress(label, done + stage, total)

    options.check_student(checkpoint.files.sampling)
    report("checkpoint", 0)
    checkpoint.check()
    source = find_face_models(options.face_models)
    with written_beside(output) as folder, _reported(options.parity_report) as figures:
        for kind, inside in bundles:
            (folder / inside / "onnx").mkdir(parents=True, exist_ok=True)
            recipes = quantization if kind in LOW_PRECISIONS else None
            exporter = GraphExporter(checkpoint, folder / inside, kind, recipes, share_halves=options.share_halves)
            figures[kind] = exporter.parity
            manifest = _exported(exporter, source, options.auxiliary if inside == Path() else None, report)
            if not inside.parts and fallback is not None:
                manifest = manifest.model_copy(update={"fallback": "fallback"})
            (folder / inside / MANIFEST).write_text(manifest.text(), encoding="utf-8")
            done += len(STAGES)
        report("done", 0)
    return Bundle.open(output)


@contextmanager
def _reported(path: Path | None) -> Iterator[dict[str, dict[str, list[ParityEntry]]]]:
    """Figures by precision and graph, written to `path` as JSON in the end, however that is. Raises OutputError."""
    figures: dict[str, dict[str, list[ParityEntry]]] = {}
    if path is not None:
        check_folder(path.parent)
    try:
        yield figures
    finally:
        if path is not None:
            graphs = {p: {g: [e.model_dump() for e in es] for g, es in by.items()} for p, by in figures.items()}
            content = {"schema_version": 1, "precisions": graphs}
            try:
                write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
            except OSError as error:
                raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _exported(exporter: GraphExporter, source: FaceSource, auxiliary: Path | None, report: Progress) -> Manifest:
    """Every graph of a bundle, written where `exporter` writes. auxiliary : as of ExportOptions."""
    quantization, graphs = exporter.quantization, {}
    for number, spec in enumerate(GRAPHS.values()):
        graphs[spec.name] = exporter.graph(spec, lambda label: report(label, number, 0))  # noqa: B023
    report("faces", len(GRAPHS), 0)
    graphs |= exporter.faces(source)
    if auxiliary is not None:
        graphs |= exporter.sync(load_syncnet(auxiliary / STABLE_SYNCNET_FILE))
    report("hashes", len(GRAPHS) + 1, 0)
    data = {path for entry in graphs.values() for path in entry.data}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        lsx_version=lsx.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        precision=exporter.asked,
        model=_model_entry(exporter.checkpoint),
        faces=FaceModels(family=source.family, source=source.hashes()),
        graphs=graphs,
        data=tuple(exporter.file(path) for path in sorted(data)),
        quantisation=None if quantization is None else _quantization_entry(exporter, quantization),
        student=student_of(exporter.checkpoint.files),
    )


def student_of(files: CheckpointFiles) -> StudentEntry | None:
    """What a checkpoint says of the student in it, None where it says nothing. Raises CheckpointError."""
    if files.sampling is None:
        return None
    try:
        student = StudentEntry.model_validate_json(files.sampling.read_bytes())
        student.options()
    except (OSError, ValueError, UsageError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CheckpointError(f"{files.sampling}: does not say how a student is sampled: {reason}") from error
    return student


def _quantization_entry(exporter: GraphExporter, quantization: Quantization) -> QuantizationEntry:
    """The files of `quantization` written into the bundle, and its entry in the manifest."""
    folder = exporter.folder / "quantisation"
    folder.mkdir()
    for name, content in quantization.files.items():
        (folder / name).write_bytes(content)
    return QuantizationEntry(
        calibration=quantization.calibration,
        method=quantization.method,
        files=tuple(exporter.file(f"quantisation/{name}") for name in sorted(quantization.files)),
    )


def _model_entry(checkpoint: Checkpoint) -> ModelEntry:
    return ModelEntry(
        **asdict(checkpoint.spec),
        checkpoint=checkpoint.hashes(),
        source=str(checkpoint.files.unet.parent.absolute()),
        mask="released outline" if checkpoint.mask_file is None else checkpoint.mask_file.name,
    )
