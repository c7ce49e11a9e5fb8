"""Distances that networks see: LPIPS of pictures, and TREPA of 16-frame clips, where their weights are given.

Weights are those of LatentSync's `checkpoints/auxiliary`, under the names that they are published by, and LPIPS's own
linear layers. Sources: Zhang et al., arXiv 1801.03924 (LPIPS, VGG16); Li et al., arXiv 2412.09262 (TREPA), over
VideoMAE v2, arXiv 2303.16727.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from lsx.errors import CheckpointError
from lsx.metrics.weight_files import LPIPS_FILES, VIDEOMAE_FILE
from lsx.models.attention import checkpointed
from lsx.models.checkpoint import load_strict, read_tensors

__all__ = ["Lpips", "Trepa", "VideoTransformer"]

_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_EDGE = 224  # pixels, of VideoMAE's frames


class Lpips:
    """LPIPS with VGG16, version 0.1."""

    def __init__(self, folder: Path) -> None:
        files = [folder / name for name in LPIPS_FILES]
        state = {k: v for k, v in read_tensors(files[0]).items() if k.startswith("features.")}
        layers, self._slices = _vgg_layers()
        vgg = nn.ModuleDict({"features": nn.Sequential(*layers)})
        load_strict(vgg, state, files[0])
        self._features = vgg["features"]
        linear = nn.ModuleDict({f"lin{i}": nn.ModuleDict({"model": _AtOne(block[-1])}) for i, block in enumerate(_VGG)})
        load_strict(linear, read_tensors(files[1]), files[1])
        self._weights = [value for _, value in sorted(linear.state_dict().items())]
        self._shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        self._scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

    def map(self, result: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
        """Distance at each pixel of two pictures in levels 0..255 [H, W, 3]: float64 [H, W]. Its mean is LPIPS's
        spatial distance."""
        with torch.inference_mode():
            pair = torch.from_numpy(np.stack([result, expected]).astype(np.float32)).permute(0, 3, 1, 2)
            total = torch.zeros(1, 1, *pair.shape[2:])
            for apart in self._distances(pair / 127.5 - 1):
                total += F.interpolate(apart, size=total.shape[2:], mode="bilinear", align_corners=False)
        return np.asarray(total[0, 0].double().numpy())

    def loss(self, result: Tensor, expected: Tensor) -> Tensor:
        """LPIPS of pictures [n, 3, H, W] in -1..1, averaged: a scalar with gradients for `result`."""
        layers = self._distances(torch.cat([result, expected]))
        return torch.stack([apart.mean() for apart in layers]).sum()

    def parameters(self) -> Iterator[Tensor]:
        """Its weights."""
        yield from self._features.parameters()
        yield from self._weights

    def to(self, device: torch.device | str) -> Lpips:
        """Move the networks there. Returns itself."""
        self._features.to(device)
        self._weights = [weight.to(device) for weight in self._weights]
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)
        return self

    def _distances(self, pairs: Tensor) -> Iterator[Tensor]:
        """Every layer's distances [n, 1, h, w]; the second half of `pairs` [2 n, 3, H, W] is what is expected."""
        x = (pairs - self._shift) / self._scale
        start = 0
        for stop, weight in zip(self._slices, self._weights, strict=True):
            x = self._features[start:stop](x)  # type: ignore[index]  # a Sequential
            start = stop
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            result, expected = unit.chunk(2)
            yield F.conv2d((result - expected).square(), weight)


def _vgg_layers() -> tuple[list[nn.Module], list[int]]:
    """VGG16's convolutions, and how many of them each slice that LPIPS looks at ends after."""
    layers: list[nn.Module] = []
    ends: list[int] = []
    channels = 3
    for block in _VGG:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        ends.append(len(layers))
    return layers, ends


class _AtOne(nn.Module):
    """A 1x1 convolution to one channel, under the name that LPIPS gives it (`model.1.weight`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module("1", nn.Conv2d(channels, 1, 1, bias=False))


class VideoTransformer(nn.Module):
    """VideoMAE v2's encoder with mean pooling: [b, 3, F, H, W] in 0..1 to features [b, width]."""

    def __init__(
        self, *, width: int = 1408, depth: int = 40, heads: int = 16, inner: int = 6144, patch: int = 14
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, (2, patch, patch), stride=(2, patch, patch))})
        self.blocks = nn.ModuleList(_Block(width, heads, inner) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.checkpointing = False

    def forward(self, video: Tensor) -> Tensor:
        x: Tensor = self.patch_embed["proj"](video).flatten(2).transpose(1, 2)
        x = x + _positions(x.shape[1], x.shape[2]).to(x)
        for block in self.blocks:
            x = checkpointed(block, x, enabled=self.checkpointing)
        pooled: Tensor = self.fc_norm(x.mean(1))
        return pooled


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.Module()
        self.attn.q_bias = nn.Parameter(torch.zeros(width))
        self.attn.v_bias = nn.Parameter(torch.zeros(width))
        self.attn.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn.proj = nn.Linear(width, width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        attention: Any = self.attn
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        qkv = F.linear(self.norm1(x), attention.qkv.weight, bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + attention.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return out


def _positions(count: int, width: int) -> Tensor:
    """Fixed sinusoids [count, width]: sine in even columns, cosine in odd ones."""
    columns = np.arange(width) // 2 * 2 / width
    angles = np.arange(count)[:, None] / 10000.0**columns
    angles[:, 0::2], angles[:, 1::2] = np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])
    return torch.from_numpy(angles.astype(np.float32))


class Trepa:
    """TREPA's distance: the mean square difference of unit features of 16 frames."""

    def __init__(self, folder: Path, network: VideoTransformer | None = None) -> None:
        file = folder / VIDEOMAE_FILE
        content = read_tensors(file)
        state = content.get("module", content.get("model", content))
        if not isinstance(state, Mapping):
            raise CheckpointError(f"{file}: holds no weights")
        if network is None:
            with torch.device("meta"):
                network = VideoTransformer()
        kept = {k: v for k, v in state.items() if not k.startswith("head.")}
        load_strict(network, kept, file)
        self._network = network.to("cuda" if torch.cuda.is_available() else "cpu")

    def distance(self, result: NDArray[Any], expected: NDArray[Any]) -> float:
        """The distance of 16 pictures from 16 others, in levels 0..255 [16, H, W, 3]."""
        with torch.inference_mode():
            pair = torch.from_numpy(np.stack([result, expected]).astype(np.float32))
            device = next(self._network.parameters()).device
            frames = (pair / 255).clamp(0, 1).flatten(0, 1).permute(0, 3, 1, 2).to(device)
            small = F.interpolate(frames, size=(_EDGE, _EDGE), mode="bilinear")
            features = self._network(small.unflatten(0, (2, -1)).transpose(1, 2))
            unit = F.normalize(features, dim=1)
            return float(F.mse_loss(unit[0], unit[1]))

    def loss(self, result: Tensor, expected: Tensor) -> Tensor:
        """TREPA of clips [n, 16, 3, H, W] in -1..1: a scalar with gradients for `result`. Bicubic, as in training."""
        with torch.no_grad():
            truth = self._unit_features(expected)
        return F.mse_loss(self._unit_features(result), truth)

    def parameters(self) -> Iterator[Tensor]:
        """Its weights."""
        yield from self._network.parameters()

    def to(self, device: torch.device | str) -> Trepa:
        """Move the network there. Returns itself."""
        self._network.to(device)
        return self

    def checkpoint_gradients(self) -> None:
        """Keep only what stands between blocks for the way back, and compute the rest again."""
        self._network.checkpointing = True

    def _unit_features(self, clips: Tensor) -> Tensor:
        frames = F.interpolate(clips.flatten(0, 1), size=(_EDGE, _EDGE), mode="bicubic")
        frames = (frames / 2 + 0.5).clamp(0, 1).unflatten(0, clips.shape[:2])
        return F.normalize(self._network(frames.transpose(1, 2)), dim=1)
