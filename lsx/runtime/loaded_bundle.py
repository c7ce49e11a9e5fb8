"""A bundle whose engines are loaded: what all of its runs share, and each one's pipeline, put together."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.footage import FootageOptions
from lsx.core.graph_names import FACE_GRAPHS, LOOP_GRAPHS, MODEL_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.core.turns import PRIORITY, Slots
from lsx.denoising.chunk_program import keeps_latents
from lsx.denoising.chunk_runner import ChunkRunner, NoiseSource, seeded_noise
from lsx.denoising.executor import io_of
from lsx.denoising.executor_cache import executor_cache_for
from lsx.denoising.fallback import Fallback
from lsx.engines.engine import Engine
from lsx.engines.loading import best_backend, check_record, load_engines
from lsx.engines.registry import EngineOptions, backend_named
from lsx.errors import StaleEngine
from lsx.faces.avatar import Avatar
from lsx.faces.compositing import read_paste_mask
from lsx.faces.detector import FaceDetector
from lsx.faces.retouch import Retouch
from lsx.runtime.face_aligner import FaceAligner
from lsx.runtime.frame_pipeline import FramePipeline
from lsx.runtime.run_plan import RunPlan
from lsx.runtime.seams import SeamMeter
from lsx.runtime.voices import voices_of

__all__ = ["LoadedBundle", "LoadedEngines", "load_run_engines"]


class LoadedEngines(NamedTuple):
    """The engines of all graphs that a run needs, and what goes with them."""

    engines: dict[str, Engine]
    backend: str
    load_fallback: Callable[[], dict[str, Engine]] | None
    """Loads the engines of the bundle's fallback; None where it has none."""
    check_settings: Callable[[SamplingOptions], None]
    """Raises NotVerified, or warns, for settings that no record covers."""


def load_run_engines(bundle: Bundle, backend: str, options: EngineOptions, *, require_verified: bool) -> LoadedEngines:
    """All of a bundle's engines, or none. The caller closes them.

    Raises UsageError, IntegrityError, NotVerified, BackendUnavailable, EngineError.
    """
    chosen = best_backend(bundle, backend)
    check_record(bundle, chosen, required=require_verified, provider=options.provider)
    fallback = bundle.fallback()
    reason = None if fallback is None else backend_named(chosen).reason_unsupported(fallback)
    if reason is not None:
        raise StaleEngine(f"the bundle's fallback does not run here: {reason}")
    with ExitStack() as opened:
        engines = load_engines(bundle, chosen, MODEL_GRAPHS, options)
        for loaded in engines.values():
            opened.enter_context(loaded)
        # some milliseconds each, on threads of their own beside the loop
        engines |= load_engines(bundle, "onnxruntime", FACE_GRAPHS, EngineOptions(threads=1))
        opened.pop_all()
    return LoadedEngines(
        engines,
        backend_named(chosen).name,
        None if fallback is None else lambda: load_engines(fallback, chosen, LOOP_GRAPHS, options),
        lambda settings: check_record(
            bundle, chosen, required=require_verified, provider=options.provider, options=settings
        ),
    )


class LoadedBundle:
    """The engines of a bundle, and the executors of its loop."""

    def __init__(
        self,
        bundle: Bundle,
        engines: dict[str, Engine],
        *,
        cuda_graph: bool,
        load_fallback: Callable[[], dict[str, Engine]] | None,
    ) -> None:
        """Own `engines` from here on. load_fallback : loads those of the bundle's fallback, where it has one."""
        self.bundle = bundle
        self.engines = engines
        loop = {graph: engines[graph] for graph in LOOP_GRAPHS}
        self.executors = executor_cache_for(loop, bundle.model, cuda_graph=cuda_graph)
        self._looks = Slots(max((os.cpu_count() or 1) - 1, 1))
        self._fallback = Fallback(
            load_fallback, lambda loaded: executor_cache_for(loaded, bundle.model, cuda_graph=cuda_graph)
        )

    def close(self) -> None:
        """Free executors and engines."""
        self.executors.close()
        self._fallback.close()
        for engine in self.engines.values():
            engine.close()

    def detector(self) -> FaceDetector:
        """The bundle's own face detector: frame to Face or None."""
        return FaceDetector(self.engines, self.bundle.manifest.faces.family)

    def runner(
        self,
        options: SamplingOptions,
        noise: NoiseSource | None = None,
        *,
        mask: NDArray[np.float32] | None,
        kept: bool,
        priority: int,
    ) -> ChunkRunner:
        """What runs one run's chunks.

        mask : of what is kept, where chunks come with their moments; kept : whether they go on from the latents of the
        one before, where the bundle's graphs can.
        """
        return ChunkRunner(
            self.executors.lender(options, priority),
            self.bundle.model,
            noise or seeded_noise(options.seed),
            options.guidance,
            lambda: self._fallback.lender(options, priority),
            mask,
            options.steps if kept and keeps_latents(io_of(self.engines)) else 0,
        )

    def pipeline(
        self,
        plan: RunPlan,
        options: SamplingOptions,
        aligner: FaceAligner,
        *,
        footage: FootageOptions,
        noise: NoiseSource | None = None,
        avatar: Avatar | None = None,
        priority: int = PRIORITY,
    ) -> FramePipeline:
        """One run's pipeline. noise : default seeded; avatar : where the chunks' moments come from."""
        model = self.bundle.model
        chunker = plan.chunker(model.frames, footage.overlap)
        aligner.turn = self._looks.of_run(priority)
        mask = None if avatar is None else avatar.mask
        return FramePipeline(
            aligner=aligner,
            chunker=chunker,
            runner=self.runner(options, noise, mask=mask, kept=footage.overlap > 0, priority=priority),
            voices=voices_of(plan, self.engines["audio_encoder"], model, footage, chunker.source_length),
            retouch=Retouch(colour_match=footage.colour_match, sharpen=footage.sharpen),
            mask=read_paste_mask(footage.mask),
            seams=SeamMeter(plan.stride),
        )
