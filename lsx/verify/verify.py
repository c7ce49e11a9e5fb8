"""Verification from end to end: reference first, engines after it, figures, verdict, bisection, record."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lsx
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import VerificationRecord
from lsx.bundle.records import Coverage
from lsx.bundle.sampling import sampling_of
from lsx.core.atomic_files import sha256_of
from lsx.core.graph_names import MODEL_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.core.thresholds import THRESHOLDS, Thresholds
from lsx.denoising.chunk_runner import seeded_noise
from lsx.engines.engine import Engine
from lsx.engines.loading import loaded_files, opened_engines
from lsx.engines.registry import EngineOptions
from lsx.faces.detector import opened_detector
from lsx.graphs.torch_engines import reference_checkpoint
from lsx.media.audio_reader import SoundReader
from lsx.metrics.arrays import ArrayError, compare, worst
from lsx.metrics.images import psnr, ssim_map
from lsx.metrics.learned import LearnedMetrics
from lsx.models.checkpoint import Checkpoint
from lsx.verify.candidate import AsFloat32, ChunkResult, EngineRun, check_graphs, step_cases
from lsx.verify.clip import ClipComparison
from lsx.verify.inputs import ChunkInput, clip_inputs, seeded_input, seeded_samples
from lsx.verify.layers import worst_layers
from lsx.verify.options import VerifyOptions, checked_backend
from lsx.verify.reference import Expected, GraphCase, Reference
from lsx.verify.report import BisectionResult, Estimate, Report, TeacherComparison, threshold_of
from lsx.verify.teacher import Teacher

__all__ = ["VerifyOptions", "verify"]

_ESTIMATES, _ESTIMATED_FRAMES = 4, 4

StageProgress = Callable[[str, int | None, int | None], None]
"""(what begins, stages done, of how many), None where that is not known: before the inputs are, and in a bisection."""


def verify(
    bundle: Bundle,
    settings: VerifyOptions | None = None,
    *,
    options: SamplingOptions | None = None,
    engine: EngineOptions | None = None,
    progress: StageProgress = lambda *_: None,
) -> Report:
    """Compare a bundle's engines with its checkpoint's reference, on the same noise; record it if all holds.

    engine : how engines are loaded; its checkpoint_dir is the reference's, default where the export found it. The
    reference runs first and its U-Net is let go, so that it and the engines are never in memory together.

    Raises UsageError, CheckpointError, IntegrityError, EngineError, MediaError, FaceNotFound, OutputError; missed
    thresholds are in the report.
    """
    settings, engine = settings or VerifyOptions(), engine or EngineOptions()
    clip = settings.clip
    options, say = sampling_of(bundle, options, {}, "options"), _Stages(progress)
    limits = THRESHOLDS[bundle.manifest.precision].override(settings.thresholds)
    chosen = checked_backend(bundle, settings, engine)
    learned = LearnedMetrics(settings.auxiliary)
    checkpoint = reference_checkpoint(bundle, engine.checkpoint_dir)
    given = settings.teacher
    teacher = None if given is None else Teacher.open(given, bundle, settings.backend, options.seed, engine)
    with tempfile.TemporaryDirectory(prefix="lsx-verify-") as temporary:
        run = _Run(bundle, checkpoint, options, Path(temporary), say)
        run.make_inputs(clip, settings.max_chunks, settings.truth)
        say.total = (2 if teacher is None else 3) * len(run.inputs) + 4
        run.make_reference()
        report = _empty_report(bundle, chosen, options, clip, limits, run.inputs)
        say("loading the engines")
        with opened_engines(bundle, chosen, MODEL_GRAPHS, engine) as engines:
            report.engine = engines["unet"].description
            run.compare(engines, report, learned)
        if teacher is not None:
            report.teacher = run.compare_teacher(teacher)
        if report.judge():
            run.bisect_failure(report, chosen, engine)
    record = _record(bundle, report, checkpoint, clip)
    report.coverage = Coverage.of(record, bundle.manifest.precision)
    if report.passed and settings.record:
        bundle.add_record(record)
    return report


def _empty_report(
    bundle: Bundle,
    backend: str,
    options: SamplingOptions,
    clip: tuple[Path, Path] | None,
    limits: Thresholds,
    inputs: list[ChunkInput],
) -> Report:
    """What is compared, before anything was."""
    return Report(
        bundle=str(bundle.path),
        model=f"{bundle.model.version}, {bundle.model.resolution} px",
        precision=bundle.manifest.precision,
        backend=backend,
        engine="",
        source="seeded inputs" if clip is None else f"{clip[0].name}, {clip[1].name}",
        options=asdict(options) | {"chunks": len(inputs), "frames": sum(one.new for one in inputs)},
        thresholds=limits,
    )


class _Stages:
    """Tells each stage as it begins, and how many are done."""

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress
        self._done = 0
        self.total: int | None = None

    def __call__(self, label: str) -> None:
        if self.total is None or self._done == self.total:
            self._progress(label, None, None)
            return
        self._progress(label, self._done, self.total)
        self._done += 1


class _Run:
    """One verification's inputs, and the reference's outcomes on disk."""

    def __init__(
        self,
        bundle: Bundle,
        checkpoint: Checkpoint,
        options: SamplingOptions,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self._bundle, self._checkpoint, self._options = bundle, checkpoint, options
        self._folder, self._say = folder, say
        self._noise = seeded_noise(options.seed)
        self._inside: NDArray[np.bool_] = checkpoint.mask() < 0.5
        self.inputs: list[ChunkInput] = []
        self.samples: NDArray[np.int16] | NDArray[np.float32] = seeded_samples()
        self._first: Expected | None = None
        self._cases: list[GraphCase] = []

    def make_inputs(self, clip: tuple[Path, Path] | None, chunks: int | None, truth: Path | None) -> None:
        """Aligned faces of every chunk."""
        if clip is None:
            self.inputs = [seeded_input(self._bundle.model)]
            return
        self._say("finding faces")
        self.samples = SoundReader(clip[1]).samples()
        with opened_detector(self._bundle) as detector:
            self.inputs = list(clip_inputs(clip, detector, self._bundle.model, chunks, truth))

    def make_reference(self) -> None:
        """The reference's outcome of every chunk; only the first one's graph cases stay in memory."""
        reference = Reference(self._checkpoint, self._options, self._noise)
        for index, chunk in enumerate(self.inputs):
            self._say(f"reference, chunk {index + 1} of {len(self.inputs)}")
            expected = reference.chunk(chunk, self.samples, cases=index == 0)
            if index == 0:
                conditioning = next(c for c in expected.cases if c.graph in ("unet", "unet_shallow"))
                mask_and_latents = conditioning.feed["sample"][-1:, 4:]
                self._cases = [
                    reference.audio_case(self.samples),
                    *expected.cases,
                    *step_cases(expected, self._options, mask_and_latents),
                ]
                self._first = expected
                self._estimated = self._estimates(reference, expected)
            np.savez(
                self._folder / f"{index}.npz", pixels=expected.pixels, tokens=expected.tokens, latents=expected.latents
            )

        reference.forget_unet()

    def _estimates(self, reference: Reference, expected: Expected) -> dict[int, NDArray[Any]]:
        steps = np.unique(np.linspace(0, len(expected.noise) - 1, _ESTIMATES).round().astype(int))
        self._estimator = reference  # its VAE decodes the engine's estimates too
        return {int(k): self._estimate(expected, expected.noise[k], int(k)) for k in steps}

    def _estimate(self, expected: Expected, noise: NDArray[np.float32], step: int) -> NDArray[Any]:
        """The clean estimate of some of the first chunk's frames: each costs a decode by PyTorch."""
        some = np.linspace(0, noise.shape[2] - 1, _ESTIMATED_FRAMES).round().astype(int)
        latents, faces = expected.latents[step][:, :, some], self.inputs[0].faces[some]
        return self._estimator.clean_estimate(latents, noise[:, :, some], step, faces)

    def compare(self, engines: Mapping[str, Engine], report: Report, learned: LearnedMetrics) -> None:
        """Every figure of the report."""
        self._say("graph by graph")
        report.graphs = check_graphs(engines, self._cases)
        self._say("clean estimates")
        self._compare_estimates(engines, report)
        loop = EngineRun(engines, self._bundle.model, self._options, self._noise, self.samples)
        drifts: list[list[ArrayError]] = []
        tokens: list[ArrayError] = []
        self._clip = clip = ClipComparison(self._inside)
        for index, chunk in enumerate(self.inputs):
            self._say(f"engines, chunk {index + 1} of {len(self.inputs)}")
            outcome = loop.run(chunk)
            with np.load(self._folder / f"{index}.npz") as expected:
                tokens.append(compare(outcome.tokens, expected["tokens"]))
                drifts.append([compare(a, b) for a, b in zip(outcome.latents, expected["latents"], strict=True)])
                clip.add(chunk, outcome.pixels, expected["pixels"])
        report.tokens = worst(tokens)
        report.drift = [worst(list(step)) for step in zip(*drifts, strict=True)]
        self._say("figures of all frames")
        report.clip = clip.figures(learned, self.samples)
        report.frames = clip.worst()

    def compare_teacher(self, teacher: Teacher) -> TeacherComparison:
        """The engines' lips, which `compare` has made, beside the teacher's."""
        made = []
        for index, faces in enumerate(teacher.faces(self.inputs, self._noise, self.samples)):
            self._say(f"teacher, chunk {index + 1} of {len(self.inputs)}")
            made.append(faces)
        lips, teacher_lips = self._clip.beside(np.concatenate(made))
        return TeacherComparison(
            bundle=str(teacher.bundle.path),
            options=asdict(teacher.options),
            made_of_it=teacher.made(self._bundle),
            lips=lips,
            teacher_lips=teacher_lips,
        )

    def _compare_estimates(self, engines: Mapping[str, Engine], report: Report) -> None:
        assert self._first is not None  # noqa: S101
        in_loop = {case.step: case for case in self._cases if case.graph in ("unet", "unet_shallow")}
        for step, expected in self._estimated.items():
            case = in_loop[step]
            noise = engines[case.graph].infer(case.feed)["noise_pred"]
            estimate = self._estimate(self._first, noise, step)
            similar = [ssim_map(a, b)[self._inside].mean() for a, b in zip(estimate, expected, strict=True)]
            report.estimates.append(
                Estimate(
                    step=step,
                    timestep=int(case.feed["timestep"][0]),
                    psnr=psnr(estimate, expected, self._inside),
                    ssim=float(np.mean(similar)),
                )
            )

    def bisect_failure(self, report: Report, backend: str, options: EngineOptions) -> None:
        """Swap graphs one by one between reference and engine; name the first that fails, and its worst layers."""
        with opened_engines(self._bundle, "torch", MODEL_GRAPHS, replace(options, float32=True)) as torch:
            report.bisection.append(self._hybrid("runtime", torch, report))
            # A loop that fails with the reference's own graphs blames none of them.
            for graph in () if report.bisection[0].failed else MODEL_GRAPHS:
                self._say(f"bisecting: {graph}")
                with opened_engines(self._bundle, backend, (graph,), options) as own:
                    report.bisection.append(self._hybrid(graph, torch | {graph: AsFloat32(own[graph])}, report))
        report.failing_graph = self._culprit(report)
        for case in self._cases:
            if case.graph == report.failing_graph and case.graph != "step":
                self._say(f"layers of {case.graph}")
                report.layers = worst_layers(self._bundle, case, self._checkpoint)
                break

    def _hybrid(self, component: str, engines: Mapping[str, Engine], report: Report) -> BisectionResult:
        chunk = self.inputs[0]
        loop = EngineRun(engines, self._bundle.model, self._options, self._noise, self.samples)
        outcome: ChunkResult = loop.run(chunk)
        with np.load(self._folder / "0.npz") as expected:
            latents = compare(outcome.latents[-1], expected["latents"][-1]).cosine
            tokens = compare(outcome.tokens, expected["tokens"]).cosine
            pairs = zip(outcome.pixels, expected["pixels"], strict=True)
            similar = float(np.mean([ssim_map(a, b)[self._inside].mean() for a, b in pairs]))
        limits = report.thresholds
        held = latents >= limits.latents_cosine and similar >= limits.mouth_ssim and tokens >= limits.audio_cosine
        if component in MODEL_GRAPHS:
            limit = limits.as_dict()[threshold_of(component)]
            rows = [r for r in report.graphs if r.graph == component and r.output != "deep_features"]
            held = held and all(row.figures.cosine >= limit for row in rows)
        return BisectionResult(component=component, latents_cosine=latents, mouth_ssim=similar, failed=not held)

    def _culprit(self, report: Report) -> str:
        """The runtime's own code if it fails with the reference's graphs, else the first graph that fails."""
        for row in report.bisection:
            if row.failed:
                if row.component != "runtime":
                    return row.component
                tokens = report.tokens is not None and not report.tokens.cosine >= report.thresholds.audio_cosine
                return "runtime: audio tokens" if tokens else "runtime: schedule and loop"
        return "all graphs together"  # each is good enough alone


def _record(
    bundle: Bundle, report: Report, checkpoint: Checkpoint, clip: tuple[Path, Path] | None
) -> VerificationRecord:
    return VerificationRecord(
        backend=report.backend,
        lsx_version=lsx.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        engine=report.engine,
        files=loaded_files(bundle, report.backend),
        checkpoint=checkpoint.hashes(),
        inputs={} if clip is None else {path.name: sha256_of(path) for path in clip},
        options={name: str(value) for name, value in report.options.items()},
        thresholds=report.thresholds.as_dict(),
        figures=report.figures(),
    )
