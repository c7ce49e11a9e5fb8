"""A student's lips beside its teacher's: that bundle dubs the same chunks, from the same noise, at its own settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import MODEL_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_runner import NoiseSource
from lsx.engines.loading import best_backend, opened_engines
from lsx.engines.registry import EngineOptions, backend_named
from lsx.errors import UsageError
from lsx.metrics.images import levels_of
from lsx.verify.candidate import EngineRun
from lsx.verify.inputs import ChunkInput

__all__ = ["Teacher"]


@dataclass(frozen=True, slots=True)
class Teacher:
    """A bundle to compare with, and how it is run."""

    bundle: Bundle
    backend: str
    options: SamplingOptions
    engine: EngineOptions

    @classmethod
    def open(cls, path: Path, student: Bundle, backend: str, seed: int, engine: EngineOptions) -> Teacher:
        """Open the bundle at `path`, once what would fail later is refused.

        It is run by its own settings, with the guidance that the student has folded in. Raises UsageError for another
        model; BundleError, BackendUnavailable, IntegrityError.
        """
        bundle = Bundle.open(path)
        if bundle.model != student.model:
            raise UsageError(f"--teacher {path} is of another model or size than {student.path}: nothing to compare")
        own = replace(engine, checkpoint_dir=None)  # the student's is none of its
        chosen = best_backend(bundle, backend, own)
        bundle.verify(backend_named(chosen).files(bundle))
        entry, options = student.manifest.student, replace(bundle.sampling, seed=seed)
        if entry is not None and bundle.manifest.student is None:
            options = replace(options, guidance=entry.teacher_guidance)
        return cls(bundle, chosen, options, own)

    def made(self, student: Bundle) -> bool | None:
        """Whether `student` says that it was made of this model; None where it was not distilled."""
        entry = student.manifest.student
        return None if entry is None else entry.teacher == self.bundle.manifest.model.checkpoint.get("unet")

    def faces(
        self, chunks: list[ChunkInput], noise: NoiseSource, samples: NDArray[np.int16] | NDArray[np.float32]
    ) -> Iterator[NDArray[np.uint8]]:
        """The new frames of each chunk in turn, uint8 [new, H, W, 3]. Raises EngineError."""
        with opened_engines(self.bundle, self.backend, MODEL_GRAPHS, self.engine) as engines:
            loop = EngineRun(engines, self.bundle.model, self.options, noise, samples)
            for chunk in chunks:
                yield levels_of(loop.run(chunk).pixels)[-chunk.new :]
