"""What is measured against what: lsx's backends on a bundle, and the PyTorch that a user runs today."""

from __future__ import annotations

import copy
import gc
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from lsx.engines.onnxruntime import default_threads
from lsx.engines.registry import backend_named, backend_names
from lsx.errors import BackendUnavailable, CheckpointError, FaceNotFound, UsageError
from lsx.faces.detector import opened_detector
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.frame_pipeline import clip_chunks

if TYPE_CHECKING:
    from lsx.models.checkpoint import Checkpoint

__all__ = [
    "CAPTURED",
    "COMPILED",
    "DEEPCACHE",
    "EAGER",
    "chunk_work",
    "clip_chunk",
    "forget_torch_memory",
    "graph_axes",
    "graph_feed",
    "graph_works",
    "reference_of",
    "runnable_backends",
    "seeded_chunk",
    "set_torch_threads",
    "torch_chunks",
]

EAGER, DEEPCACHE, COMPILED = "PyTorch eager", "PyTorch + DeepCache", "PyTorch compiled + DeepCache"
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
    """One run of a graph, by system: by events on the device, by the clock on a CPU.

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


def set_torch_threads(threads: int | None) -> None:
    """Let PyTorch take as many threads as a CPU engine does. Nothing where it is not installed."""
    try:
        import torch
    except ImportError:
        return
    count = threads or default_threads()
    if count:
        torch.set_num_threads(count)


def forget_torch_memory() -> None:
    """Give the device memory back that PyTorch keeps for itself, so that others have it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def seeded_chunk(model: ModelSpec) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Faces uint8 [F, H, W, 3] and tokens float32 [F, S, D] of one chunk."""
    shape = (model.frames, model.resolution, model.resolution, 3)
    faces = np.clip(named_noise("bench.faces", shape, 0) * 50 + 127, 0, 255).astype(np.uint8)
    return faces, named_noise("bench.tokens", (model.frames, model.tokens, model.audio_dim), 0)


def chunk_work(executors: ExecutorCache, model: ModelSpec, options: SamplingOptions) -> Work:
    """Encode, denoise and decode one chunk from host memory to host memory."""
    denoiser = ChunkRunner(executors.lender(options), model, seeded_noise(0), options.guidance)
    faces, tokens = seeded_chunk(model)

    def work() -> None:
        denoiser.result(denoiser.submit(faces, tokens, 0))

    return work


def torch_chunks(
    checkpoint: Checkpoint, options: SamplingOptions, *, compiled: bool, note: Callable[[str], None]
) -> dict[str, Work]:
    """The original's chunk in PyTorch, as its users run it: eager, with DeepCache, and compiled with DeepCache.

    fp16 on a GPU, float32 on a CPU; each chunk is waited for. Without a cache interval there is no DeepCache to have.
    """
    import torch

    try:
        chunk = _TorchChunk(checkpoint)
    except torch.cuda.OutOfMemoryError:
        note("PyTorch does not fit into this GPU beside lsx's engines: no baselines of the chunk")
        return {}
    plain = replace(options, cache_interval=None)
    cached = {} if options.cache_interval is None else {DEEPCACHE: chunk.work(chunk.unet, options)}
    works = cached | {EAGER: chunk.work(chunk.unet, plain)}  # next to lsx's own, so that little drifts between them
    if torch.cuda.is_available():
        works = {name: work for name, work in works.items() if _fits(work, name, note)}
    if compiled and options.cache_interval is not None:
        work = chunk.work(_CompiledUNet(chunk.unet), options, _compiled_vae(chunk.vae))
        start = time.perf_counter()
        try:
            work()  # compiles
        except Exception as error:
            note(f"torch.compile does not work here: {str(error).strip().splitlines()[0]}")
        else:
            note(f"torch.compile took {time.perf_counter() - start:.0f} s until its first chunk was done")
            works[COMPILED] = work
    return works


def _fits(work: Work, name: str, note: Callable[[str], None]) -> bool:
    """Whether it runs; tried where memory may not do for it and lsx's engines together."""
    import torch

    try:
        work()
    except torch.cuda.OutOfMemoryError:
        note(f"{name} does not fit into this GPU beside lsx's engines; it was left out")
        return False
    return True


class _TorchChunk:
    """The original's chunk in PyTorch: encode, denoise, decode, paste."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch

        on_gpu = torch.cuda.is_available()
        self._device, self._dtype = ("cuda", torch.float16) if on_gpu else ("cpu", torch.float32)
        self._model = checkpoint.spec
        self.unet = checkpoint.unet().eval().requires_grad_(False).to(self._device, self._dtype)
        self.vae = checkpoint.vae().eval().requires_grad_(False)
        torch.nn.Module.to(self.vae, self._device, self._dtype)  # diffusers' own warns of nothing
        self._mask = torch.from_numpy(checkpoint.mask()).to(self._device, self._dtype)
        self._faces, self._tokens = seeded_chunk(self._model)
        self._noise = seeded_noise(0)

    def work(self, unet: Any, options: SamplingOptions, vae: Any = None) -> Work:
        """One chunk by `unet`, from host memory to host memory. vae : default the checkpoint's own, eager."""
        import torch

        def work() -> None:
            with torch.inference_mode():
                self._run(unet, options, vae or self.vae)

        return work

    def _draw(self, name: str, shape: tuple[int, ...]) -> Any:
        import torch

        return torch.from_numpy(self._noise(name, shape)).to(self._device, self._dtype)

    def _run(self, unet: Any, options: SamplingOptions, vae: Any) -> None:
        import torch

        from lsx.models import reference

        model, mask = self._model, self._mask
        faces = torch.from_numpy(self._faces).to(self._device)
        pixels = faces.permute(0, 3, 1, 2).to(self._dtype) / 255 * 2 - 1
        size = (model.frames, 4, model.latent, model.latent)
        pair = [
            reference.encode(vae, picture, self._draw(f"{name}.0", size))
            for name, picture in (("masked", pixels * mask), ("reference", pixels))
        ]
        edge = mask[None, None, ::8, ::8].expand(model.frames, -1, -1, -1)
        conditioning = torch.cat([edge, *pair], dim=1).transpose(0, 1)[None]
        start = self._draw("latents", (1, 4, 1, model.latent, model.latent)).repeat(1, 1, model.frames, 1, 1)
        tokens = torch.from_numpy(self._tokens).to(self._device, self._dtype)
        *_, latents = reference.denoise(unet, start, conditioning, tokens, options)
        pasted = reference.paste(reference.decode(vae, latents[0].transpose(0, 1)), pixels, mask)
        ((pasted / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()


class _CompiledUNet:
    """Both of the U-Net's ways, compiled."""

    def __init__(self, unet: Any) -> None:
        import torch

        compile_: Any = torch.compile
        self._full, self.forward_shallow = compile_(unet), compile_(unet.forward_shallow)

    def __call__(self, *tensors: Any) -> Any:
        return self._full(*tensors)


def _compiled_vae(vae: Any) -> Any:
    """Another VAE over the same weights, its two networks compiled."""
    import torch

    compiled = copy.copy(vae)
    parts = {name: torch.compile(getattr(vae, name)) for name in ("encoder", "decoder")}
    compiled._modules = {**vae._modules, **parts}
    return compiled


def reference_of(bundle: Bundle, folder: Path | None, note: Callable[[str], None]) -> Checkpoint | None:
    """The bundle's checkpoint, or None with a note where it is not at hand. One that was asked for must be there."""
    where = folder or Path(bundle.manifest.model.source)
    if folder is None and not where.is_dir():
        note("no PyTorch baselines: the checkpoint is not where it was exported from; give --checkpoint-dir DIR")
        return None
    try:
        from lsx.graphs.torch_backend import reference_checkpoint
    except ImportError as error:
        if folder is not None:
            raise UsageError(f"--checkpoint-dir needs {error.name}. Install it: pip install 'lsx[export]'") from error
        note(f"no PyTorch baselines: {error.name} is not installed")
        return None
    try:
        return reference_checkpoint(bundle, folder)
    except CheckpointError as error:
        if folder is not None:
            raise
        note(f"no PyTorch baselines: {error}")
        return None
