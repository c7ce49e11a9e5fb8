"""A small VAE of Stable Diffusion's architecture for tiny faces: python -m examples.tiny.vae DATA OUT.

LatentSync takes a trained VAE as it is, so this is no part of `lsx train`. Loss: absolute error, most where the mask
lets the model paint, a little of its gradients', the error of the colours at an eighth of the size, which absolute
error alone finds last, and a small pull of the latents to unit variance, which Stable Diffusion's scaling expects.
That pull makes latents noisy, and what is as small as a lip drowns: so a second phase goes without it. Most steps see
tiles of a quarter of the picture, half of them at the mouth, for a quarter of the time; the last see whole pictures,
since norms and attention run over all that is there.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lsx.models.mask import mask_at, mask_raster
from lsx.models.pixels import pixels_of
from lsx.models.reference import LATENT_SCALE
from lsx.models.vae import Vae, VaeConfig, write_vae
from lsx.training.shards import DataSet

__all__ = [
    "SIZE",
    "descend",
    "new_vae",
    "pixel_weight",
    "psnr",
    "scale_latents",
    "sharpen_vae",
    "train_vae",
]

SIZE: dict[str, Any] = {"block_out_channels": (16, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8}
_KL = 1e-6
_EDGES = 0.5
_COLOURS = 10.0
_PAINTED = 2.0  # weight of the pixels that the model paints
_MOUTH = 6.0  # and of those round the mouth
_SQUARES = 4.0  # weight of the squared error where a VAE is sharpened
_NOISE = 0.05  # of the latents' spread, while a VAE is sharpened
_DEVIATION = 0.03  # of the latents' spread: what the finished network says of its own
_Batch = tuple[Tensor, Tensor]  # pixels, and what each counts


def new_vae(seed: int = 0) -> Vae:
    """The network with new weights."""
    torch.manual_seed(seed)
    return Vae(VaeConfig(sample_size=128, **SIZE))


def _frames(data: DataSet, batch: int, seed: int) -> Iterator[Tensor]:
    """Batches of frames from everywhere, float32 [batch, 3, R, R] in -1..1, mirrored at random."""
    random = np.random.default_rng(seed)
    while True:
        faces = []
        for row in random.choice(len(data.rows), batch // 2):
            start = int(random.integers(0, data.rows[row].frames - 1))
            both = data.faces(data.rows[row], range(start, start + 2))
            faces += [face[:, ::-1] if random.random() < 0.5 else face for face in both]
        yield pixels_of(np.stack(faces))


def _whole(batches: Iterator[Tensor], weight: Tensor) -> Iterator[_Batch]:
    return ((pixels, weight) for pixels in batches)


def _tiles(batches: Iterator[Tensor], weight: Tensor, seed: int) -> Iterator[_Batch]:
    """Half as wide and high as the pictures: every other one at the mouth, the others anywhere, by 8 pixels."""
    random = np.random.default_rng(seed)
    size = len(weight) // 2
    low, centre = size // 8, size // 16
    for pixels in batches:
        tiles, weights = [], []
        for picture, mouth in zip(pixels, itertools.cycle((True, False))):
            first, last = ((low - 2, centre - 1), (low, centre + 1)) if mouth else ((0, 0), (low, low))
            y, x = 8 * random.integers(first, last, endpoint=True)
            at = (slice(y, y + size), slice(x, x + size))
            tiles.append(picture[:, *at])
            weights.append(weight[at])
        yield torch.stack(tiles), torch.stack(weights)[:, None]


def _picture_loss(difference: Tensor, weight: Tensor) -> Tensor:
    edges = sum(difference.diff(dim=axis).abs().mean() for axis in (2, 3))
    loss: Tensor = (difference.abs() * weight).mean() + _EDGES * edges
    return loss + _COLOURS * F.avg_pool2d(difference, 8).square().mean()


def _loss(vae: Vae, pixels: Tensor, weight: Tensor, anchor: float) -> Tensor:
    posterior = vae.encode(pixels)
    latents = posterior.mean + posterior.deviation * torch.randn_like(posterior.mean)
    difference = vae.decode(latents) - pixels
    logs = posterior.log_variance
    spread = (posterior.mean.square() + logs.exp() - 1 - logs).sum() / len(pixels)
    colours = F.avg_pool2d(pixels, 8)
    loss: Tensor = _picture_loss(difference, weight) + _KL * spread
    return loss + anchor * F.mse_loss(posterior.mean[:, :3], 2 * colours)


def _sharp_loss(vae: Vae, pixels: Tensor, weight: Tensor) -> Tensor:
    mean = vae.encode(pixels).mean
    noise = _NOISE * mean.detach().std((0, 2, 3), keepdim=True) * torch.randn_like(mean)
    difference = vae.decode(mean + noise) - pixels
    loss: Tensor = _picture_loss(difference, weight) + _SQUARES * (difference.square() * weight).mean()
    return loss


def pixel_weight(resolution: int) -> Tensor:
    """What each pixel of an aligned face counts in a loss, float32 [R, R], 1 in the mean: most round the mouth."""
    painted = torch.from_numpy(mask_at(mask_raster(None), resolution)) < 0.5
    weight = torch.where(painted, _PAINTED, 1.0)
    weight[resolution // 2 : 7 * resolution // 8, resolution // 4 : 3 * resolution // 4] = _MOUTH
    return weight / weight.mean()


def descend(
    name: str, parameters: Sequence[nn.Parameter], steps: int, lr: float, loss_at: Callable[[int], Tensor]
) -> None:
    """`steps` of AdamW on the loss of each step, 1 to `steps`; the learning rate falls along a cosine."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    started = time.perf_counter()
    for step in range(1, steps + 1):
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(
                f"{name} step {step}/{steps} loss {loss.item():.4f} {time.perf_counter() - started:.0f} s", flush=True
            )


def _train(
    vae: Vae, steps: int, lr: float, batches: Iterator[_Batch], loss_of: Callable[[Tensor, Tensor, int], Tensor]
) -> Vae:
    descend("vae", list(vae.parameters()), steps, lr, lambda step: loss_of(*next(batches), step))
    return vae.eval().requires_grad_(False)


def train_vae(data: DataSet, steps: int, *, batch: int = 4, lr: float = 1.5e-3, seed: int = 0) -> Vae:
    """Train for `steps` on tiles; the learning rate falls along a cosine.

    In the first half the first three channels are drawn to the colours of the picture at an eighth of its size, ever
    more weakly: a network this small finds colours slowly by itself. Deterministic on a CPU with one thread count.
    """
    vae, weight = new_vae(seed), pixel_weight(data.info.resolution)
    tiles = _tiles(_frames(data, batch, seed), weight, seed)
    return _train(
        vae,
        steps,
        lr,
        tiles,
        lambda pixels, weight, step: _loss(vae, pixels, weight, max(0.01, 0.5 - step / steps)),
    )


def sharpen_vae(
    vae: Vae, data: DataSet, steps: int, *, whole: float = 0.25, batch: int = 4, lr: float = 1e-3, seed: int = 1
) -> None:
    """Train on with little noise in the latents and without their pull, the squared error counted too.

    What the network says of its latents' deviation means nothing afterwards; `scale_latents` sets it.

    whole : the share of the steps, the last ones, that see whole pictures.
    """
    torch.manual_seed(seed)
    vae.train().requires_grad_(True)
    weight, tiled = pixel_weight(data.info.resolution), round(steps * (1 - whole))
    tiles = _tiles(_frames(data, batch, 100 + seed), weight, seed)
    pictures = _whole(_frames(data, batch, 200 + seed), weight)
    batches = itertools.chain(itertools.islice(tiles, tiled), pictures)
    _train(vae, steps, lr, batches, lambda pixels, weight, _: _sharp_loss(vae, pixels, weight))


@torch.no_grad()
def scale_latents(vae: Vae, data: DataSet) -> None:
    """Make the latents' variance what LATENT_SCALE expects, by changing the two 1x1 convolutions round them.

    Their own deviation becomes a small share of that, the same everywhere: a U-Net that is shown its conditions through
    more noise learns no better than the noise allows.
    """
    pixels = torch.cat([batch for batch, _ in zip(_frames(data, 16, 1), range(8), strict=False)])
    mean = vae.encode(pixels).mean
    shift, factor = mean.mean((0, 2, 3)), 1 / (LATENT_SCALE * mean.std((0, 2, 3)))
    quant: Any = vae.quant_conv
    post: Any = vae.post_quant_conv
    quant.weight[:4] *= factor[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - shift) * factor
    quant.weight[4:] = 0
    quant.bias[4:] = 2 * math.log(_DEVIATION / LATENT_SCALE)
    post.bias += post.weight[:, :, 0, 0] @ shift
    post.weight /= factor[None, :, None, None]


@torch.no_grad()
def psnr(vae: Vae, data: DataSet) -> float:
    """Of decoded faces against themselves, in dB over levels of 255."""
    pixels = torch.cat([batch for batch, _ in zip(_frames(data, 16, 2), range(4), strict=False)])
    decoded = vae.decode(vae.encode(pixels).mean).clamp(-1, 1)
    return float(10 * torch.log10(4 / F.mse_loss(decoded, pixels)))


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--sharpen", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    data = DataSet.open(given.data)
    vae = train_vae(data, given.steps, batch=given.batch)
    sharpen_vae(vae, data, given.sharpen, batch=given.batch)
    before = psnr(vae, data)
    scale_latents(vae, data)
    print(f"PSNR {before:.2f} dB, {psnr(vae, data):.2f} dB with scaled latents", flush=True)
    write_vae(given.output, vae.config, vae.state_dict())


if __name__ == "__main__":
    main()
