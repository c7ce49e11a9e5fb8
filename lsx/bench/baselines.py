"""The baselines: the PyTorch that a user runs today."""

from __future__ import annotations

import copy
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsx.bench.timing import Work
from lsx.bench.workloads import EAGER, seeded_chunk
from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_runner import seeded_noise
from lsx.engines.onnxruntime import default_threads
from lsx.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from lsx.models.checkpoint import Checkpoint

__all__ = ["COMPILED", "DEEPCACHE", "forget_torch_memory", "reference_of", "set_torch_threads", "torch_chunks"]

DEEPCACHE, COMPILED = "PyTorch + DeepCache", "PyTorch compiled + DeepCache"


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
        self.vae = checkpoint.vae().to(self._device, self._dtype)
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
        from lsx.graphs.torch_engines import reference_checkpoint
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
