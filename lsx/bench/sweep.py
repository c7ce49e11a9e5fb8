"""Speed against quality: samplers, steps, cache intervals and precisions, each against the 50-step result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.bench.judged_clip import JudgedClip, Verdict
from lsx.bench.report import Sweep, SweepPoint
from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import Sampler, SamplingOptions
from lsx.denoising.chunk_runner import ChunkRunner, seeded_noise
from lsx.denoising.executor_cache import ExecutorCache, executor_cache_for
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions

__all__ = ["SETTINGS", "SweepInputs", "pareto", "recommend", "sweep"]

SETTINGS: tuple[tuple[Sampler, int, int | None], ...] = (
    ("ddim", 50, 3),
    ("ddim", 20, None),
    ("ddim", 20, 2),
    ("ddim", 20, 3),
    ("ddim", 20, 4),
    ("ddim", 20, 5),
    ("ddim", 10, None),
    ("ddim", 10, 3),
    ("dpm++2m", 20, 3),
    ("dpm++2m", 10, None),
    ("dpm++2m", 10, 3),
    ("dpm++2m", 6, None),
    ("dpm++2m", 6, 2),
)
"""(sampler, steps, cache interval); the released script's is DDIM, 20 steps, 3."""

RELEASED = ("ddim", 20, 3)
_REFERENCE_STEPS = 50
_REPEATS, _LONG = 3, 10.0


@dataclass(frozen=True, slots=True, eq=False)
class SweepInputs:
    """The one chunk that every setting denoises."""

    faces: NDArray[np.uint8]
    """uint8 [F, H, W, 3]."""
    tokens: NDArray[np.float32]
    """float32 [F, S, D]."""
    label: str
    """What they are, in words."""
    clip: JudgedClip | None = None
    """A clip that every setting makes whole, to be judged by its lips."""


def sweep(
    bundles: Sequence[Bundle],
    backend: str,
    guidance: float,
    options: EngineOptions,
    settings: Sequence[tuple[Sampler, int, int | None]] = SETTINGS,
    *,
    inputs: SweepInputs,
    progress: Callable[[str], None] = lambda _: None,
) -> Sweep:
    """Measure every setting on every bundle (precisions of one model), on one chunk of the same faces and noise.

    The reference is DDIM with 50 steps and no DeepCache, on the bundle of the widest precision.
    """
    widest = max(bundles, key=lambda b: _WIDTH[b.manifest.precision])
    reference_options = SamplingOptions(steps=_REFERENCE_STEPS, guidance=guidance, cache_interval=None)
    points: list[SweepPoint] = []
    expected: NDArray[Any] | None = None
    for bundle in sorted(bundles, key=lambda b: -_WIDTH[b.manifest.precision]):
        precision = bundle.manifest.precision
        with ExitStack() as stack:
            engines = stack.enter_context(opened_engines(bundle, backend, LOOP_GRAPHS, options))
            executors = executor_cache_for(engines, bundle.model)
            stack.callback(executors.close)
            if bundle is widest:
                progress(f"sweep: reference, {_REFERENCE_STEPS} steps in {precision}")
                expected, _ = _one_chunk(executors, bundle, reference_options, inputs, 1)
            if expected is None:
                raise RuntimeError("the widest bundle comes first")
            inside = np.abs(expected - inputs.faces) > 1e-3
            for sampler, steps, interval in settings:
                progress(f"sweep: {precision}, {sampler}, {steps} steps, cache interval {interval or 'off'}")
                chosen = SamplingOptions(steps=steps, guidance=guidance, cache_interval=interval, sampler=sampler)
                pixels, seconds = _one_chunk(executors, bundle, chosen, inputs, _REPEATS)
                error = float(np.sqrt(np.mean((pixels - expected)[inside] ** 2)))
                verdict = Verdict() if inputs.clip is None else inputs.clip.verdict(executors, bundle, chosen)
                points.append(_point(precision, chosen, seconds, error, verdict))
    best = pareto(points)
    marked = tuple(point.model_copy(update={"pareto": point in best}) for point in points)
    reference_label = f"DDIM, {_REFERENCE_STEPS} steps, no DeepCache, {widest.manifest.precision}, on {inputs.label}"
    return Sweep(reference=reference_label, points=marked, recommendation=recommend(marked))


def _point(precision: str, options: SamplingOptions, seconds: float, error: float, verdict: Verdict) -> SweepPoint:
    lips, sync = verdict.lips, verdict.stable_sync
    return SweepPoint(
        precision=precision,
        sampler=options.sampler,
        steps=options.steps,
        cache_interval=options.cache_interval,
        seconds=seconds,
        error=error,
        pareto=False,
        correlation=None if lips is None else lips.correlation,
        lag=None if lips is None else lips.lag,
        mouth_psnr=None if lips is None else lips.psnr,
        stable_sync=None if sync is None else sync.cosine,
        stable_sync_offset=None if sync is None else sync.offset,
    )


_WIDTH = {"fp8": 0, "int8": 1, "bf16": 2, "fp16": 3, "fp32": 4}
"""Of precisions, by how close they come to the reference."""


def _one_chunk(
    executors: ExecutorCache,
    bundle: Bundle,
    options: SamplingOptions,
    inputs: SweepInputs,
    repeat: int,
) -> tuple[NDArray[Any], float]:
    """Decoded faces in levels, and the median seconds of `repeat` chunks, or of as many as take _LONG seconds."""
    runner = ChunkRunner(executors.lender(options), bundle.model, seeded_noise(0), options.guidance)
    taken: list[float] = []
    pixels = None
    while pixels is None or (len(taken) < repeat and sum(taken) < _LONG):
        start = time.perf_counter()
        result = runner.result(runner.submit(inputs.faces, inputs.tokens, 0))
        taken.append(time.perf_counter() - start)
        pixels = result["pixels"].astype(np.float32)
    return pixels, statistics.median(taken)


def pareto(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """The points that no other beats in both seconds and error, fastest first."""
    best: list[SweepPoint] = []
    for point in sorted(points, key=lambda p: (p.seconds, p.error)):
        if not best or point.error < best[-1].error:
            best.append(point)
    return best


def recommend(points: Sequence[SweepPoint]) -> str:
    """The fastest that is no further from the 50-step result than the released script's setting, in one line."""
    released = [p for p in points if (p.sampler, p.steps, p.cache_interval) == RELEASED]
    limit = min((p.error for p in released), default=None)
    if limit is None:
        fastest = pareto(points)[-1]
        return f"take {_said(fastest)}: the least error, {fastest.error:.2f} levels, in {fastest.seconds:.3g} s a chunk"
    standard = min(released, key=lambda p: p.error)
    chosen = min((p for p in points if p.error <= limit), key=lambda p: p.seconds)
    if chosen is standard:
        return (
            f"stay with {_said(chosen)}: nothing faster is as close to the 50-step result "
            f"({chosen.error:.2f} levels, {chosen.seconds:.3g} s a chunk)"
        )
    return (
        f"take {_said(chosen)}: {chosen.error:.2f} levels from the 50-step result where the released setting is "
        f"{limit:.2f}, and {standard.seconds / chosen.seconds:.2f}x as fast ({chosen.seconds:.3g} s a chunk)"
    )


def _said(point: SweepPoint) -> str:
    cache = "no DeepCache" if point.cache_interval is None else f"cache interval {point.cache_interval}"
    return f"{point.precision}, {point.sampler}, {point.steps} steps, {cache}"
