"""What a verification found, as values; JSON by `as_json`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.records import Coverage
from lsx.core.thresholds import Thresholds
from lsx.metrics.arrays import ArrayError
from lsx.metrics.lips import LipFigures
from lsx.metrics.stable_sync import StableSyncFigures
from lsx.metrics.syncnet import SyncFigures

__all__ = [
    "BisectionResult",
    "ClipQuality",
    "Estimate",
    "GraphFigures",
    "LayerFigures",
    "Report",
    "TeacherComparison",
    "WorstFrame",
    "threshold_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFigures:
    """One graph on the reference's own inputs, the worst of all forwards that were compared."""

    graph: str
    output: str
    forwards: int
    figures: ArrayError


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The one-step clean estimate at a step, decoded, inside the mask."""

    step: int
    timestep: int
    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipQuality:
    """Decoded faces of whole chunks against the reference's; SSIM is the mean over frames, PSNR over all pixels."""

    frames: int
    mouth_psnr: float
    mouth_ssim: float
    face_psnr: float
    face_ssim: float
    temporal: float
    """Mean difference, in levels, of the change from frame to frame inside the mask."""
    mouth_lpips: float | None = None
    """LPIPS (VGG16) inside the mask, mean over the frames; None where its weights were not given."""
    face_lpips: float | None = None
    trepa: float | None = None
    """TREPA's distance, mean over windows of 16 frames; None without weights, or under 16 frames."""
    sync: SyncFigures | None = None
    """SyncNet's verdict of the engines' faces; None without weights."""
    expected_sync: SyncFigures | None = None
    """The same of the reference's."""
    stable_sync: StableSyncFigures | None = None
    """StableSyncNet's verdict of the engines' faces; None without weights, or under 32 frames."""
    expected_stable_sync: StableSyncFigures | None = None
    """The same of the reference's."""
    lips: LipFigures | None = None
    """The engines' lips against the truth; None where it was not given."""
    expected_lips: LipFigures | None = None
    """The same of the reference's."""

    def lines(self) -> list[str]:
        """What the judging networks found, in words; none where none was asked."""
        parts = []
        if self.mouth_lpips is not None and self.face_lpips is not None:
            parts.append(f"LPIPS: mouth {self.mouth_lpips:.5f}, face {self.face_lpips:.5f}")
        if self.trepa is not None:
            parts.append(f"TREPA distance: {self.trepa:.3g}")
        for name, sync in (("engine", self.sync), ("reference", self.expected_sync)):
            if sync is not None:
                parts.append(
                    f"SyncNet, {name}: confidence {sync.confidence:.2f}, offset {sync.offset:+d} frames, "
                    f"distance {sync.distance:.2f}"
                )
        for name, stable in (("engine", self.stable_sync), ("reference", self.expected_stable_sync)):
            if stable is not None:
                parts.append(
                    f"StableSyncNet, {name}: cosine {stable.cosine:.3f}, offset {stable.offset:+d} frames, "
                    f"margin {stable.margin:.3f}"
                )
        for name, lips in (("engine", self.lips), ("reference", self.expected_lips)):
            if lips is not None:
                parts.append(f"lips against the truth, {name}: {lips}")
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherComparison:
    """The engines' lips beside another bundle's, which dubs the same clip from the same noise at its own settings."""

    bundle: str
    options: dict[str, Any]
    """How the teacher is sampled."""
    made_of_it: bool | None
    """Whether the student says that it was made of this model; None for a model that was not distilled."""
    lips: LipFigures
    """The engines' lips against the teacher's."""
    teacher_lips: LipFigures | None = None
    """The teacher's lips against the truth; None where it was not given."""

    def lines(self) -> list[str]:
        """The comparison in words."""
        cache, options = self.options["cache_interval"] or "off", self.options
        settings = f"{options['sampler']} {options['steps']}, guidance {options['guidance']:g}, cache {cache}"
        parts = [f"lips against the teacher's ({self.bundle}, {settings}): {self.lips}"]
        if self.teacher_lips is not None:
            parts.append(f"lips against the truth, teacher: {self.teacher_lips}")
        if self.made_of_it is False:
            parts.append(f"sampling.json names another teacher than {self.bundle}")
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFigures:
    """One layer of a failing graph: relative error at its output, and how far that is above what came before."""

    name: str
    error: float
    jump: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectionResult:
    """One hybrid of the bisection: this component the engine's, all others the reference's."""

    component: str
    """A graph, or `runtime`: none, and lsx's own code round them."""
    latents_cosine: float
    mouth_ssim: float
    failed: bool
    """Whether a figure is under its threshold."""

    def as_json(self) -> dict[str, Any]:
        """An entry of report.json, whose names are those of schema 1."""
        return {
            "part": self.component,
            "latents_cosine": self.latents_cosine,
            "mouth_ssim": self.mouth_ssim,
            "guilty": self.failed,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorstFrame:
    """A frame, the reference's and the engine's, uint8 [H, W, 3]."""

    frame: int
    ssim: float
    expected: NDArray[np.uint8]
    result: NDArray[np.uint8]


@dataclass(slots=True, kw_only=True, eq=False)
class Report:
    """Everything that a verification found."""

    bundle: str
    model: str
    precision: str
    backend: str
    engine: str
    """The engines' description of themselves."""
    source: str
    """What was compared: a clip's name, or seeded inputs."""
    options: dict[str, Any]
    thresholds: Thresholds
    coverage: Coverage | None = None
    """The settings that this speaks for; known in the end."""
    graphs: list[GraphFigures] = field(default_factory=list)
    tokens: ArrayError | None = None
    drift: list[ArrayError] = field(default_factory=list)
    """Latents before the first step and after each, the worst over the chunks."""
    estimates: list[Estimate] = field(default_factory=list)
    clip: ClipQuality | None = None
    teacher: TeacherComparison | None = None
    frames: list[WorstFrame] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    bisection: list[BisectionResult] = field(default_factory=list)
    layers: list[LayerFigures] = field(default_factory=list)
    failing_graph: str | None = None
    """The culprit: the first graph, or step of the host's code, that fails alone."""

    @property
    def passed(self) -> bool:
        """Whether every threshold holds."""
        return not self.failures

    def figures(self) -> dict[str, float]:
        """The figures that the thresholds are about, by threshold."""
        by_threshold: dict[str, list[float]] = {}
        for row in self.graphs:
            if row.output == "deep_features":  # judged by what unet_shallow makes of them
                continue
            by_threshold.setdefault(_THRESHOLD_OF[row.graph], []).append(row.figures.cosine)
        if self.tokens is not None:
            by_threshold.setdefault("audio_cosine", []).append(self.tokens.cosine)
        if self.drift:
            by_threshold["latents_cosine"] = [self.drift[-1].cosine]
        if self.clip is not None:
            by_threshold["mouth_ssim"] = [self.clip.mouth_ssim]
        if self.teacher is not None:
            by_threshold["teacher_correlation"] = [self.teacher.lips.correlation]
        return {name: float(np.min(values)) for name, values in by_threshold.items()}

    def judge(self) -> bool:
        """Fill `failures` with a line for every figure under its threshold. NaN fails.

        Returns whether graphs are to blame: engines and reference differ by too much, not student and teacher.
        """
        limits, found = self.thresholds.as_dict(), self.figures()
        missed = [name for name, value in found.items() if not value >= limits[name]]
        self.failures = [f"{name} is {found[name]:.6f}, at least {limits[name]:g} is wanted" for name in missed]
        return any(name != "teacher_correlation" for name in missed)

    def as_json(self) -> dict[str, Any]:
        """Return the content of report.json; a figure that is not finite becomes null."""
        content = {
            "schema_version": 1,
            "bundle": self.bundle,
            "model": self.model,
            "precision": self.precision,
            "backend": self.backend,
            "engine": self.engine,
            "source": self.source,
            "options": self.options,
            "passed": self.passed,
            "coverage": None
            if self.coverage is None
            else asdict(self.coverage) | {"smoke_check": self.coverage.smoke_check},
            "thresholds": self.thresholds.as_dict(),
            "figures": self.figures(),
            "failures": self.failures,
            "failing_graph": self.failing_graph,
            "graphs": [asdict(row) for row in self.graphs],
            "tokens": None if self.tokens is None else asdict(self.tokens),
            "drift": [asdict(row) for row in self.drift],
            "estimates": [asdict(row) for row in self.estimates],
            "clip": None if self.clip is None else asdict(self.clip),
            "teacher": None if self.teacher is None else asdict(self.teacher),
            "bisection": [row.as_json() for row in self.bisection],
            "layers": [asdict(row) for row in self.layers],
            "worst_frames": [{"frame": w.frame, "ssim": w.ssim} for w in self.frames],
        }
        finite: dict[str, Any] = _finite(content)
        return finite


def threshold_of(graph: str) -> str:
    """The name of the threshold that a graph's cosine is held to."""
    return _THRESHOLD_OF[graph]


_THRESHOLD_OF = {
    "audio_encoder": "audio_cosine",
    "vae_encoder": "vae_cosine",
    "unet": "unet_cosine",
    "unet_shallow": "unet_cosine",
    "step": "step_cosine",
    "vae_decoder": "vae_cosine",
}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
