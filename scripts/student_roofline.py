"""What a chunk of 16 frames takes at least on a GPU, by steps: python -m scripts.student_roofline.

The tables of docs/distillation.md. Nothing is measured: the networks run on PyTorch's meta device at full size, every
product's FLOPs and every operator's bytes are counted, and each is divided by what the data sheet promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from lsx.models.vae import Vae, VaeConfig

__all__ = ["GPUS", "RESOLUTIONS", "Gpu", "Work", "chunk_seconds", "main", "network_work", "works"]

FRAMES = 16
RESOLUTIONS = (256, 512)
_BYTES = 2  # of a float16


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the maker's data sheet says: FLOP/s of dense float16 products, bytes/s of memory."""

    name: str
    flops: float
    bandwidth: float


GPUS = (Gpu("H100 SXM", 989e12, 3.35e12), Gpu("H200", 989e12, 4.8e12))


@dataclass(slots=True)
class Work:
    """The products of a network, as (FLOPs, bytes), and the bytes of all other operators."""

    products: list[tuple[float, float]] = field(default_factory=list)
    others: float = 0

    @property
    def flops(self) -> float:
        """Of all products."""
        return sum(flops for flops, _ in self.products)

    def least_seconds(self, gpu: Gpu) -> float:
        """Each product at the peak or at the memory's pace; all else is thought to ride on them."""
        return sum(max(flops / gpu.flops, moved / gpu.bandwidth) for flops, moved in self.products)

    def seconds(self, gpu: Gpu) -> float:
        """The same, every other operator reading and writing memory once: no fusion at all."""
        return self.least_seconds(gpu) + self.others / gpu.bandwidth


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view:
            return out
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        moved = float(_BYTES * sum(t.numel() for t in tensors))
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
            self.work.products.append((float(flops), moved))
        else:
            self.work.others += moved
        return out


def network_work(network: Any, *inputs: torch.Tensor) -> Work:
    """The work of a call on the meta device."""
    counter = _Counter()
    with counter, torch.no_grad():
        network(*inputs)
    return counter.work


def works(resolution: int) -> dict[str, Work]:
    """By graph: `unet` and `unet_shallow` for batches of 1 and 2, the encoder's two calls, the decoder's one."""
    side, found = resolution // 8, {}
    with torch.device("meta"):
        unet, vae = UNet3D(UNetConfig()).eval(), Vae(VaeConfig()).eval()
        for batch in (1, 2):
            sample, time = torch.empty(batch, 13, FRAMES, side, side), torch.empty(1)
            audio = torch.empty(batch, FRAMES, 50, 384)
            found[f"unet {batch}"] = network_work(unet, sample, time, audio)
            with torch.no_grad():
                _, deep = unet(sample, time, audio)
            found[f"unet_shallow {batch}"] = network_work(unet.forward_shallow, sample, time, audio, deep)
        pixels, latents = torch.empty(2 * FRAMES, 3, resolution, resolution), torch.empty(FRAMES, 4, side, side)
        found["vae_encoder"] = network_work(vae.encode, pixels)
        found["vae_decoder"] = network_work(vae.decode, latents)
    return found


def chunk_seconds(found: dict[str, Work], gpu: Gpu, *, fused: bool) -> Iterator[tuple[str, float, float]]:
    """Rows of (what, seconds in the U-Net, seconds in the VAE) of one chunk."""
    taken = {name: (work.least_seconds if fused else work.seconds)(gpu) for name, work in found.items()}
    vae = taken["vae_encoder"] + taken["vae_decoder"]
    yield "teacher, 20 steps, guidance", 20 * taken["unet 2"], vae
    yield "the same with DeepCache 3", 7 * taken["unet 2"] + 13 * taken["unet_shallow 2"], vae
    for steps in (4, 2, 1):
        yield f"student, {steps} step{'s' * (steps > 1)}", steps * taken["unet 1"], vae


def main() -> None:
    """Print the tables."""
    for resolution in RESOLUTIONS:
        found = works(resolution)
        print(
            f"\n{resolution} px, FLOPs of a call: " + ", ".join(f"{n} {w.flops / 1e12:.2f} T" for n, w in found.items())
        )
        for gpu in GPUS:
            print(f"\n| {gpu.name}, {resolution} px | U-Net, ms | VAE, ms | chunk, ms | share of the VAE |")
            print("|---|---|---|---|---|")
            pairs = zip(*(chunk_seconds(found, gpu, fused=fused) for fused in (True, False)), strict=True)
            for (what, unet, vae), (_, slow_unet, slow_vae) in pairs:
                chunk, slow = unet + vae, slow_unet + slow_vae
                cells = [
                    f"{1e3 * a:.1f} - {1e3 * b:.1f}" for a, b in ((unet, slow_unet), (vae, slow_vae), (chunk, slow))
                ]
                print(f"| {what} | {' | '.join(cells)} | {100 * vae / chunk:.0f} - {100 * slow_vae / slow:.0f} % |")


if __name__ == "__main__":
    main()
