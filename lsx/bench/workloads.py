"""What is timed: a graph, and a whole chunk, on lsx's backends; and the seeded inputs of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.bench.timing import Work
from lsx.bundle.bundle import Bundle
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import TensorSpec
from lsx.denoising.chunk_runner import ChunkRunner, seeded_noise
from lsx.denoising.executor import vae_frames_of
from lsx.denoising.executor_cache import ExecutorCache
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.engine import Engine
from lsx.engines.loading import load_engine
from lsx.engines.registry import backend_named, backend_names
from lsx.errors import BackendUnavailable, FaceNotFound
from lsx.faces.detector import opened_detector
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.frame_pipeline import clip_chunks

__all__ = [
    "CAPTURED",
    "EAGER",
    "chunk_work",
    "clip_chunk",
    "graph_axes",
    "graph_feed",
    "graph_works",
    "runnable_backends",
    "seeded_chunk",
]

EAGER = "PyTorch eager"
CAPTURED = "PyTorch captured"
"""A graph in PyTorch, launched as a captured CUDA graph: what is left of lsx's lead without the cost of enqueueing."""


def runnable_backends(bundle: Bundle) -> tuple[str, ...]:
    """lsx's backends that can run `bundle` here, best first; PyTorch is a baseline and not among them."""
    names = []
    for name in backend_names():
        try:
            backend = backend_named(name)
        except BackendUnavailable:
            continue
        planned = not name.startswith("tensorrt") or any(plan.backend == name for plan in bundle.manifest.plans)
        if name != "torch" and planned and backend.availability()[0] and backend.reason_unsupported(bundle) is None:
            names.append(name)
    on_device = tuple(name for name in names if name.startswith("tensorrt"))
    return on_device or tuple(names)  # a CPU beside a GPU would take all the time and tell nothing


def graph_axes(engines: Iterable[Engine], model: ModelSpec, options: SamplingOptions) -> dict[str, int]:
    """Lengths of the axes that vary, one for all that are compared: a run's, but fewer frames of the VAE on CPUs."""
    return {"b": options.guidance_batch, "F": vae_frames_of(engines, model), "n": 1}


def graph_feed(engine: Engine, axes: Mapping[str, int]) -> dict[str, Any]:
    """Seeded inputs in the engine's own dtypes."""

    def array(spec: TensorSpec) -> Any:
        shape = spec.shape_at(axes)
        values = named_noise(f"bench.{spec.name}", shape, 0)
        if spec.dtype == "uint8":
            return np.clip(values * 50 + 127, 0, 255).astype(np.uint8)
        return np.full(shape, 481.0, np.float32) if spec.name == "timestep" else values

    return engine.cast({name: array(spec) for name, spec in engine.inputs.items()})


def graph_works(name: str, engine: Engine, axes: Mapping[str, int]) -> dict[str, Work]:
    """One run of a graph, by contender: by events on the device, by the clock on a CPU.

    On a device lsx's own are launches of a captured graph where they can be captured, as in the loop; PyTorch is
    measured as it is run, kernel by kernel, and captured beside that.
    """
    feed = graph_feed(engine, axes)
    if isinstance(engine, DeviceEngine):
        works: dict[str, Work] = {name: lambda: engine.device_seconds(feed, captured=name != EAGER)}
        if name == EAGER:
            works[CAPTURED] = lambda: engine.device_seconds(feed)
        return works

    def work() -> None:
        engine.run(feed)

    return {name: work}


def clip_chunk(bundle: Bundle, video: Path, audio: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Faces and tokens of a clip's first chunk that has a face. Raises MediaError, FaceNotFound."""
    model = bundle.model
    with opened_detector(bundle) as detector, load_engine(bundle, "audio_encoder") as encoder:
        source = VideoReader(video).ping_pong(model.frames)
        for chunk in clip_chunks(source, detector, model, model.frames):
            if chunk.faces is not None:
                tokens = AudioTokens(encoder, SoundReader(audio).samples(), model)
                return chunk.faces, tokens.tokens([item.index for item in chunk.items])
    raise FaceNotFound(f"{video}: no face in its first {model.frames} frames")


def seeded_chunk(model: ModelSpec) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Faces uint8 [F, H, W, 3] and tokens float32 [F, S, D] of one chunk."""
    shape = (model.frames, model.resolution, model.resolution, 3)
    faces = np.clip(named_noise("bench.faces", shape, 0) * 50 + 127, 0, 255).astype(np.uint8)
    return faces, named_noise("bench.tokens", (model.frames, model.tokens, model.audio_dim), 0)


def chunk_work(executors: ExecutorCache, model: ModelSpec, options: SamplingOptions) -> Work:
    """Encode, denoise and decode one chunk from host memory to host memory."""
    runner = ChunkRunner(executors.lender(options), model, seeded_noise(0), options.guidance)
    faces, tokens = seeded_chunk(model)

    def work() -> None:
        runner.result(runner.submit(faces, tokens, 0))

    return work
