"""Backends against each other, in turn in one run: each graph, and the whole 16-frame call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsx.bundle import Bundle
from lsx.engines.engine import Engine
from lsx.engines.registry import backend_named
from lsx.errors import UsageError
from lsx.runtime.denoising import Denoiser, seeded_noise
from lsx.runtime.executors import executors_for
from lsx.runtime.program import LOOP_GRAPHS
from lsx.seeded import normal
from lsx.specs import ModelSpec, SampleOptions, TensorSpec

__all__ = ["GRAPHS", "Row", "bench"]

GRAPHS = ("audio_encoder", *LOOP_GRAPHS)
CALL = "16-frame call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing measured on two backends."""

    name: str
    seconds: dict[str, float]
    """Median by backend."""
    spread: dict[str, float]
    """Half the distance between the quartiles, by backend."""
    ratio: float
    """Median of the pair-by-pair ratios: the baseline's seconds over the candidate's."""
    repeats: int

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        return asdict(self)


def bench(
    bundle: Bundle,
    *,
    candidate: str = "onnxruntime",
    baseline: str = "torch",
    reference: Path | None = None,
    graphs: tuple[str, ...] = GRAPHS,
    call: bool = True,
    options: SampleOptions | None = None,
    repeat: int = 5,
    threads: int | None = None,
    provider: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Iterator[Row]:
    """Measure `candidate` against `baseline`, A B A B after a warm-up each, and yield rows as they are ready.

    options : of the whole call, default 4 steps at guidance 1.5 with DeepCache.
    """
    if repeat < 1:
        raise UsageError(f"repeat is {repeat}; give a whole number from 1 on")
    unknown = set(graphs) - set(GRAPHS)
    if unknown:
        raise UsageError(f"no graph {', '.join(sorted(unknown))}; choose from {', '.join(GRAPHS)}")
    names = (candidate, baseline)
    options = options or SampleOptions(steps=4)
    with ExitStack() as stack:
        engines: dict[str, dict[str, Engine]] = {}
        for name in names:
            backend_named(name)  # an unknown one fails before anything loads
        for name in (baseline, candidate):  # the baseline may lack its checkpoint, which is known at once
            engines[name] = {
                graph: stack.enter_context(
                    bundle.engine(graph, name, reference=reference, threads=threads, provider=provider)
                )
                for graph in (GRAPHS if call else graphs)
            }
        for graph in graphs:
            if progress is not None:
                progress(graph)
            works = {
                name: partial(engine.run, _feed(engine, bundle.model, options))
                for name, engine in ((n, engines[n][graph]) for n in names)
            }
            yield _row(graph, works, names, repeat)
        if call:
            if progress is not None:
                progress(CALL)
            calls = {n: _call(engines[n], bundle.model, options) for n in names}
            yield _row(f"{CALL}, {options.steps} steps", calls, names, max(repeat // 2, 1))


def _row(name: str, works: Mapping[str, Callable[[], Any]], names: tuple[str, str], repeat: int) -> Row:
    taken: dict[str, list[float]] = {n: [] for n in names}
    for work in works.values():
        work()
        work()
    for _ in range(repeat):
        for n in names:
            start = time.perf_counter()
            works[n]()
            taken[n].append(time.perf_counter() - start)
    candidate, baseline = names
    ratios = [b / a for a, b in zip(taken[candidate], taken[baseline], strict=True)]
    return Row(
        name=name,
        seconds={n: statistics.median(t) for n, t in taken.items()},
        spread={n: _half_quartiles(t) for n, t in taken.items()},
        ratio=statistics.median(ratios),
        repeats=repeat,
    )


def _half_quartiles(seconds: list[float]) -> float:
    low, high = np.percentile(seconds, [25, 75])
    return float(high - low) / 2


def _axes(model: ModelSpec, options: SampleOptions) -> dict[str, int]:
    return {"b": options.guidance_batch, "F": model.vae_frames, "n": 1}


def _feed(engine: Engine, model: ModelSpec, options: SampleOptions) -> dict[str, Any]:
    """Seeded inputs at the lengths that a run uses, in the engine's own dtypes."""
    axes = _axes(model, options)

    def array(spec: TensorSpec) -> Any:
        shape = spec.shape_at(axes)
        values = normal(f"bench.{spec.name}", shape, 0)
        if spec.dtype == "uint8":
            return np.clip(values * 50 + 127, 0, 255).astype(np.uint8)
        return np.full(shape, 481.0, np.float32) if spec.name == "timestep" else values

    return engine.cast({name: array(spec) for name, spec in engine.inputs.items()})


def _call(engines: dict[str, Engine], model: ModelSpec, options: SampleOptions) -> Callable[[], Any]:
    """Encode, denoise and decode one call of seeded faces and tokens."""
    executors = executors_for({graph: engines[graph] for graph in LOOP_GRAPHS}, model)
    denoiser = Denoiser(executors.get(options), model, seeded_noise(0), options.guidance)
    shape = (model.frames, model.resolution, model.resolution, 3)
    faces = np.clip(normal("bench.faces", shape, 0) * 50 + 127, 0, 255).astype(np.uint8)
    tokens = normal("bench.tokens", (model.frames, model.tokens, model.audio_dim), 0)

    def work() -> Any:
        denoiser.submit(faces, tokens, 0)
        denoiser.result().release()

    return work
