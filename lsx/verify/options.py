"""What is verified. Light: what cannot be is refused before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.core.atomic_files import check_folder
from lsx.core.thresholds import THRESHOLDS
from lsx.engines.loading import best_backend
from lsx.engines.registry import AUTO, EngineOptions, backend_named
from lsx.errors import UsageError
from lsx.metrics.weight_files import check_weights

__all__ = ["VerifyOptions", "checked_backend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What is compared, and by settings. Raises UsageError."""

    clip: tuple[Path, Path] | None = None
    """Video and sound; default seeded inputs."""
    backend: str = AUTO
    max_chunks: int | None = None
    """The most chunks of 16 frames to compare; default the whole clip."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Replacements of the precision's own, by name."""
    auxiliary: Path | None = None
    """Folder with the weights of LPIPS, TREPA's VideoMAE or SyncNet, see `LearnedMetrics`."""
    record: bool = True
    """Whether to enter the verification record in the manifest when all holds."""

    truth: Path | None = None
    """The clip's video as the result ought to be, where that is known: engine's and reference's lips are held to it."""

    teacher: Path | None = None
    """A bundle whose lips the engines' are compared with: what a student was made of."""

    def __post_init__(self) -> None:
        for name in ("truth", "teacher"):
            if getattr(self, name) is not None and self.clip is None:
                raise UsageError(f"--{name} is of a clip; give --clip VIDEO AUDIO too")
        if "teacher_correlation" in self.thresholds and self.teacher is None:
            raise UsageError("--threshold teacher_correlation is of a teacher; give --teacher BUNDLE too")
        if self.max_chunks is not None and self.max_chunks < 1:
            raise UsageError(f"max_chunks is {self.max_chunks}; give a whole number from 1 on")


def checked_backend(bundle: Bundle, settings: VerifyOptions, engine: EngineOptions) -> str:
    """The backend that is compared, once what would fail later is refused: limits, weights, files, the record's place.

    Raises UsageError, BackendUnavailable, CheckpointError, StaleEngine, IntegrityError, OutputError.
    """
    THRESHOLDS[bundle.manifest.precision].override(settings.thresholds)
    if settings.auxiliary is not None:
        check_weights(settings.auxiliary)
    backend = best_backend(bundle, settings.backend, engine)
    if settings.record:
        check_folder(bundle.path)
    bundle.verify(backend_named(backend).files(bundle))
    return backend
