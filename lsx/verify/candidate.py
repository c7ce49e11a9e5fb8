"""The engines under test: each graph on the reference's inputs, and whole chunks through the runtime's own loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_program import chunk_program
from lsx.denoising.chunk_runner import ChunkRunner, NoiseSource
from lsx.denoising.executor import HostExecutor, Only, io_of, vae_frames_of
from lsx.denoising.program import Operation, RunGraph
from lsx.denoising.schedule import IDENTITY, schedule
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.metrics.arrays import ArrayError, compare, worst
from lsx.runtime.audio_features import AudioTokens
from lsx.verify.inputs import ChunkInput
from lsx.verify.reference import Expected, GraphCase
from lsx.verify.report import GraphFigures

__all__ = ["AsFloat32", "ChunkResult", "EngineRun", "check_graphs", "step_cases"]


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """One chunk through the runtime's loop."""

    tokens: Array
    latents: list[Array]
    """Latents before the first step, and after each."""
    pixels: Array
    """float32 [F, H, W, 3] in levels."""


class AsFloat32(Engine):
    """An engine of any precision with float32 tensors, so that it fits among the reference's."""

    def __init__(self, engine: Engine) -> None:
        inputs, outputs = ([s.as_float32() for s in specs.values()] for specs in (engine.inputs, engine.outputs))
        super().__init__(engine.graph, inputs, outputs)
        self._engine = engine
        self.on_device = engine.on_device

    @property
    def description(self) -> str:
        return self._engine.description

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        return self._engine.infer(feed_dict)

    def close(self) -> None:
        self._engine.close()


class EngineRun:
    """The runtime's program on any engines, every step's latents being kept."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        model: ModelSpec,
        options: SamplingOptions,
        noise: NoiseSource,
        samples: NDArray[np.int16] | NDArray[np.float32],
    ) -> None:
        self._model = model
        loop = {graph: engines[graph] for graph in LOOP_GRAPHS}
        self._latents: list[Array] = []
        frames = vae_frames_of(loop.values(), model)
        program = chunk_program(model, io_of(loop), options, vae_frames=frames)
        self._executor = HostExecutor(program, loop, observe=self._seen)
        self._runner = ChunkRunner(Only(self._executor), model, noise, options.guidance)
        self._tokens = AudioTokens(engines["audio_encoder"], samples, model)

    def _seen(self, operation: Operation, written: Mapping[str, Array]) -> None:
        if isinstance(operation, RunGraph) and operation.graph == "step":
            self._latents.append(written["latents_out"].astype(np.float32))

    def run(self, chunk: ChunkInput) -> ChunkResult:
        """One chunk. Raises EngineError."""
        self._latents.clear()
        tokens = self._tokens.tokens(range(chunk.first, chunk.first + self._model.frames))
        result = self._runner.result(self._runner.submit(chunk.faces, tokens, chunk.number))
        pixels = result["pixels"].astype(np.float32)
        return ChunkResult(tokens, list(self._latents), pixels)


def step_cases(expected: Expected, options: SamplingOptions, conditioning: Array) -> list[GraphCase]:
    """`step` at every step: the runtime's coefficients in, the reference's next latents out."""
    cases = []
    previous = np.zeros_like(expected.latents[0])
    batch = options.guidance_batch
    for index, step in enumerate(schedule(options)):
        noise, before, after = expected.noise[index], expected.latents[index], expected.latents[index + 1]
        sample = np.concatenate([after, conditioning], axis=1).repeat(batch, axis=0)
        feed = {
            "noise_pred": noise,
            "latents": before,
            "previous": previous,
            "conditioning": conditioning,
            "coefficients": step.coefficients,
            "guidance": np.array([options.guidance], dtype=np.float32),
            "kept": np.zeros((1, 5, *before.shape[2:]), np.float32),
        }
        cases.append(GraphCase(graph="step", feed=feed, outputs={"latents_out": after, "sample": sample}, step=index))
        guided = noise[:1] + options.guidance * (noise[-1:] - noise[:1])
        previous = (step.coefficients[3] * before + step.coefficients[4] * guided).astype(np.float32)
    first = cases[0].feed | {"coefficients": IDENTITY.astype(np.float32)}
    start = np.concatenate([expected.latents[0], conditioning], axis=1).repeat(batch, axis=0)
    return [
        GraphCase(graph="step", feed=first, outputs={"latents_out": expected.latents[0], "sample": start}, step=-1),
        *cases,
    ]


def check_graphs(engines: Mapping[str, Engine], cases: Iterable[GraphCase]) -> list[GraphFigures]:
    """Every engine on those of the reference's inputs that it has: the worst figures of each output."""
    errors: dict[tuple[str, str], list[ArrayError]] = {}
    for case in cases:
        engine = engines[case.graph]
        feed = {name: array for name, array in case.feed.items() if name in engine.inputs}  # lsx 0.2's have no `kept`
        results: Mapping[str, Any] = engine.infer(feed)
        for name, expected in case.outputs.items():
            pair = (results[name], expected)
            if name == "pixels":  # round 0, or their mean would hide everything from the cosine
                pair = (results[name] / 127.5 - 1, expected / 127.5 - 1)
            errors.setdefault((case.graph, name), []).append(compare(*pair))
    return [
        GraphFigures(graph=graph, output=output, forwards=len(figures), figures=worst(figures))
        for (graph, output), figures in errors.items()
    ]
