"""Checkpoint to bundle: each graph traced, checked against its module as it is made, and the whole written at once."""

from __future__ import annotations

import datetime
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

import lsx
from lsx.bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    Bundle,
    FaceModels,
    FileEntry,
    GraphEntry,
    Manifest,
    ModelEntry,
    ParityEntry,
    QuantisationEntry,
    TensorEntry,
    sha256_of,
)
from lsx.engines.onnxruntime import engine_from_onnx
from lsx.errors import ExportError, UsageError
from lsx.export import parity
from lsx.export.faces.models import FaceSource, face_graphs, find_face_models
from lsx.export.graphs import GRAPHS, QUANTISED, GraphSpec, Tolerance
from lsx.export.onnx_file import OPSET, WeightStore, free_leading_axis, save_model, trace, widen
from lsx.export.precision import FP32_ISLANDS, to_precision, torch_dtype
from lsx.export.quantisation import Quantisation, check_coverage
from lsx.export.recipe import apply_recipe
from lsx.export.writing import written_beside
from lsx.models.checkpoint import Checkpoint
from lsx.specs import (
    LOW_PRECISIONS,
    PRECISIONS,
    Dtype,
    FloatPrecision,
    ModelSpec,
    Precision,
    TensorSpec,
    base_precision,
)

__all__ = ["STAGES", "export_bundle"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many stages are."""

STAGES = (*GRAPHS, "faces", "hashes")

_LOW: dict[FloatPrecision, Dtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def export_bundle(
    checkpoint: Checkpoint,
    output: Path,
    *,
    precision: Precision = "fp16",
    fallback: Precision | None = None,
    face_models: Path | None = None,
    quantisation: Quantisation | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export every graph of `checkpoint` into the bundle `output`, replacing an older bundle there.

    Each graph is checked by onnx.checker and by ONNX Runtime against its float32 module on seeded inputs. The bundle
    is written beside `output` and renamed when whole: on any failure the old one stays.

    fallback : a wider precision to carry too, in a bundle inside the bundle: a call whose result is not finite is done
    once more with it. quantisation : the recipes of an int8 or fp8 bundle, see `lsx.calibration.quantise`.

    Raises UsageError, CheckpointError, ParityError, ExportError, OutputError.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision is {precision}; choose one of {', '.join(PRECISIONS)}")
    if (precision in LOW_PRECISIONS) != (quantisation is not None):
        raise UsageError(f"--precision {precision} and a quantisation do not go together: int8 and fp8 need one")
    wider = _WIDER[precision]
    if fallback is not None and fallback not in wider:
        raise UsageError(f"--fallback is {fallback}; for {precision} choose {' or '.join(wider) or 'none'}")
    parts = [(precision, Path())] + ([] if fallback is None else [(fallback, Path("fallback"))])
    total, done = len(parts) * len(STAGES), 0

    def report(what: str, stage: int, _of: int = 0) -> None:
        if progress is not None:
            progress(what, done + stage, total)

    report("checkpoint", 0)
    checkpoint.check()
    source = find_face_models(face_models)
    with written_beside(output) as folder:
        for kind, inside in parts:
            (folder / inside / "onnx").mkdir(parents=True, exist_ok=True)
            recipes = quantisation if kind in LOW_PRECISIONS else None
            manifest = _exported(checkpoint, folder / inside, kind, source, recipes, report)
            if not inside.parts and fallback is not None:
                manifest = manifest.model_copy(update={"fallback": "fallback"})
            (folder / inside / MANIFEST).write_text(manifest.text(), encoding="utf-8")
            done += len(STAGES)
        report("done", 0)
    return Bundle.open(output)


_WIDER: dict[Precision, tuple[FloatPrecision, ...]] = {
    "fp32": (),
    "fp16": ("fp32", "bf16"),
    "bf16": ("fp32",),
    "int8": ("fp32", "bf16", "fp16"),
    "fp8": ("fp32", "bf16", "fp16"),
}
"""Precisions whose range or digits exceed another's."""


def _exported(
    checkpoint: Checkpoint,
    folder: Path,
    precision: Precision,
    source: FaceSource,
    quantisation: Quantisation | None,
    report: Progress,
) -> Manifest:
    """Every graph of a bundle, written into `folder`."""
    exporter = _Exporter(checkpoint, folder, precision, quantisation)
    graphs = {}
    for number, spec in enumerate(GRAPHS.values()):
        graphs[spec.name] = exporter.graph(spec, lambda what: report(what, number, 0))  # noqa: B023
    report("faces", len(GRAPHS), 0)
    graphs |= exporter.faces(source)
    report("hashes", len(GRAPHS) + 1, 0)
    data = {path for entry in graphs.values() for path in entry.data}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        lsx_version=lsx.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        precision=precision,
        model=_model_entry(checkpoint),
        faces=FaceModels(family=source.family, source=source.hashes()),
        graphs=graphs,
        data=tuple(exporter.file(path) for path in sorted(data)),
        quantisation=None if quantisation is None else _quantisation_entry(exporter, quantisation),
    )


def _quantisation_entry(exporter: _Exporter, quantisation: Quantisation) -> QuantisationEntry:
    """The files of `quantisation` written into the bundle, and its entry in the manifest."""
    folder = exporter.folder / "quantisation"
    folder.mkdir()
    for name, content in quantisation.files.items():
        (folder / name).write_bytes(content)
    return QuantisationEntry(
        calibration=quantisation.calibration,
        method=quantisation.method,
        files=tuple(exporter.file(f"quantisation/{name}") for name in sorted(quantisation.files)),
    )


def _model_entry(checkpoint: Checkpoint) -> ModelEntry:
    spec = checkpoint.spec
    return ModelEntry(
        version=spec.version,
        resolution=spec.resolution,
        frames=spec.frames,
        video_fps=spec.video_fps,
        sample_rate=spec.sample_rate,
        audio_window=spec.audio_window,
        audio_states=spec.audio_states,
        audio_dim=spec.audio_dim,
        max_frames=spec.max_frames,
        checkpoint=checkpoint.hashes(),
        source=str(checkpoint.files.unet.parent.absolute()),
        mask="released outline" if checkpoint.mask_file is None else checkpoint.mask_file.name,
    )


class _Exporter:
    """Writes the graphs of one bundle into `folder`."""

    def __init__(
        self, checkpoint: Checkpoint, folder: Path, precision: Precision, quantisation: Quantisation | None
    ) -> None:
        self.checkpoint = checkpoint
        self.model: ModelSpec = checkpoint.spec
        self.folder = folder
        self.precision = base_precision(precision)
        self.quantisation = quantisation
        self.store = WeightStore(folder / "onnx")

    def file(self, path: str) -> FileEntry:
        full = self.folder / path
        return FileEntry(path=path, sha256=sha256_of(full), size=full.stat().st_size)

    def graph(self, spec: GraphSpec, report: Callable[[str], None]) -> GraphEntry:
        recipe = None if self.quantisation is None else self.quantisation.recipe_of(spec.name)
        report(f"{spec.name}: reference")
        module = spec.build(self.checkpoint)
        module.eval().requires_grad_(False)
        if self.quantisation is None or recipe is None:
            feeds = [spec.feed(self.model, module, n) for n in spec.checked]
        else:
            feeds = [dict(self.quantisation.feeds[spec.name])]  # ranges are those of real calls
        expected = [_run_module(module, feed, spec.outputs) for feed in feeds]
        if recipe is not None:
            apply_recipe(module, recipe)
        report(f"{spec.name}: tracing")
        to_precision(module, spec.name, self.precision)
        path = self.folder / "onnx" / f"{spec.name}.onnx"
        model = self._trace(spec, module)
        inputs = [self._tensor(spec, name, array) for name, array in feeds[0].items()]
        outputs = [self._tensor(spec, name, array) for name, array in expected[0].items()]
        report(f"{spec.name}: writing")
        coverage = None
        if recipe is not None and self.quantisation is not None:
            coverage = check_coverage(spec.name, model, module, recipe, self.quantisation.flops[recipe.part])
        del module
        data = save_model(model, path, self.store)
        operators = Counter(node.op_type for node in model.graph)
        del model
        onnx.checker.check_model(str(path))
        report(f"{spec.name}: checking")
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            runnable, method = self._runnable(path, Path(temporary))
            if recipe is not None:
                method += ", on a recorded call"
            tolerance = spec.tolerance[self.precision] if recipe is None else QUANTISED
            measured = self._check(
                spec, runnable, inputs, outputs, list(zip(feeds, expected, strict=True)), method, tolerance
            )
        return GraphEntry(
            file=self.file(f"onnx/{path.name}"),
            data=tuple(f"onnx/{name}" for name in data),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            precision=self.precision if recipe is None else recipe.precision,
            opset=OPSET,
            operators=dict(sorted(operators.items())),
            islands=tuple(
                f"{i.module}: {i.reason}" for i in FP32_ISLANDS if i.graph == spec.name and self.precision != "fp32"
            ),
            parity=measured,
            coverage=coverage,
        )

    def _trace(self, spec: GraphSpec, module: nn.Module) -> ir.Model:
        feed = spec.feed(self.model, module, 2)
        low = torch_dtype(self.precision)
        arguments = [
            torch.from_numpy(array).to(low) if name in spec.low else torch.from_numpy(array)
            for name, array in feed.items()
        ]
        if spec.axis is None or spec.leading:
            dynamic = None
        else:
            dynamic = [{spec.varying[name]: spec.axis} if name in spec.varying else None for name in feed]
        try:
            model = trace(module, arguments, list(feed), spec.outputs, dynamic)
            if spec.leading and spec.axis is not None:
                free_leading_axis(model, spec.axis, spec.varying)
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExportError(
                f"{spec.name}: torch {torch.__version__} could not export it: {first}. "
                "Try the torch version of lsx's constraints file"
            ) from error
        return model

    def _tensor(self, spec: GraphSpec, name: str, array: NDArray[Any]) -> TensorEntry:
        shape: list[int | str] = list(array.shape)
        if spec.axis is not None and name in spec.varying:
            shape[spec.varying[name]] = spec.axis
        dtype: Dtype = "uint8" if array.dtype == np.uint8 else "float32"
        if name in spec.low:
            dtype = _LOW[self.precision]
        elif name in spec.half and self.precision != "fp32":
            dtype = "float16"
        return TensorEntry(name=name, dtype=dtype, shape=tuple(shape))

    def _runnable(self, path: Path, temporary: Path) -> tuple[Path, str]:
        """The file that is checked on ONNX Runtime's CPU provider, and how that is said in the manifest."""
        if self.precision != "bf16":
            return path, "onnxruntime CPU against the float32 module"
        widened = temporary / path.name
        widen(path, widened)
        return (
            widened,
            "bf16 weights in float32 arithmetic (onnxruntime has no bf16 CPU kernels), against the float32 module",
        )

    def _check(
        self,
        spec: GraphSpec,
        path: Path,
        inputs: list[TensorEntry],
        outputs: list[TensorEntry],
        cases: list[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]],
        method: str,
        tolerance: Tolerance,
    ) -> tuple[ParityEntry, ...]:
        engine = engine_from_onnx(
            path, spec.name, *(_runnable_specs(t, self.precision) for t in (inputs, outputs)), optimise=False
        )
        entries = []
        with engine:
            for feed, expected in cases:
                measured = parity.check(spec.name, engine.infer(feed), expected, tolerance)
                entries += [
                    ParityEntry(
                        output=name,
                        method=method,
                        max_error=d.max,
                        mean_error=d.mean,
                        cosine=d.cosine,
                        tolerance_max=tolerance.max,
                    )
                    for name, d in measured.items()
                ]
        return tuple(entries)

    def faces(self, source: FaceSource) -> dict[str, GraphEntry]:
        """The two face graphs. They are checked when built; their weights are small and stay inside."""
        entries = {}
        for name, model in face_graphs(source).items():
            path = self.folder / "onnx" / f"{name}.onnx"
            onnx.save(model, str(path))
            entries[name] = GraphEntry(
                file=self.file(f"onnx/{name}.onnx"),
                inputs=tuple(_entry_of(value) for value in model.graph.input),
                outputs=tuple(_entry_of(value) for value in model.graph.output),
                precision="fp32",
                opset=OPSET,
                operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
            )
        return entries


def _run_module(module: nn.Module, feed: dict[str, NDArray[Any]], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    with torch.inference_mode():
        result = module(*(torch.from_numpy(array) for array in feed.values()))
    results = result if isinstance(result, tuple) else (result,)
    return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}


def _runnable_specs(tensors: list[TensorEntry], precision: Precision) -> list[TensorSpec]:
    """The I/O of the file that is checked: bf16 graphs are widened for that."""
    specs = [tensor.spec() for tensor in tensors]
    if precision != "bf16":
        return specs
    return [
        TensorSpec(name=s.name, dtype="float32" if s.dtype == "bfloat16" else s.dtype, shape=s.shape) for s in specs
    ]


def _entry_of(value: onnx.ValueInfoProto) -> TensorEntry:
    kind = value.type.tensor_type
    dtype: Dtype = "uint8" if kind.elem_type == onnx.TensorProto.UINT8 else "float32"
    return TensorEntry(name=value.name, dtype=dtype, shape=tuple(d.dim_value for d in kind.shape.dim))
