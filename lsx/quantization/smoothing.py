"""SmoothQuant without a single new operation: factors folded into the layers that make a linear layer's input.

An input channel with outliers is divided by a factor, and the weights that read it are multiplied by it. The division
goes into the norm, the value projection or the feed-forward half before; an input without such a neighbour (the audio
tokens, the residual stream before the last linear of a motion module) is left alone.
Source: SmoothQuant, arXiv 2211.10438.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lsx.models.attention import Attention, FeedForward, SpatialBlock, TemporalBlock, TemporalTransformer

__all__ = ["SmoothingGroup", "fold", "smoothing_factors", "smoothing_groups"]


@dataclass(frozen=True, slots=True, eq=False)
class _Producer:
    """A tensor of the layer before: `stop` leading entries of `axis` (all if None) are the channels in question."""

    module: nn.Module
    name: str
    axis: int = 0
    stop: int | None = None

    def divide(self, factors: Tensor) -> None:
        old = getattr(self.module, self.name)
        divided = old.detach().clone()
        rows = divided.narrow(self.axis, 0, divided.shape[self.axis] if self.stop is None else self.stop)
        shape = [1] * divided.ndim
        shape[self.axis] = -1
        rows /= factors.view(shape)
        if isinstance(old, nn.Parameter):
            divided = nn.Parameter(divided, requires_grad=False)
        setattr(self.module, self.name, divided)


@dataclass(frozen=True, slots=True, eq=False)
class SmoothingGroup:
    """Linear layers that read one tensor, and what makes it. `name` is the first layer's path."""

    name: str
    readers: tuple[nn.Linear, ...]
    producers: tuple[_Producer, ...]


def smoothing_groups(module: nn.Module) -> Iterator[SmoothingGroup]:
    """The groups of a U-Net, by path in `module`."""
    for path, block in module.named_modules():
        if isinstance(block, SpatialBlock):
            first, second = block.attn1, block.attn2
            yield SmoothingGroup(f"{path}.attn1.to_q", (first.to_q, first.to_k, first.to_v), _affine(block.norm1))
            yield SmoothingGroup(f"{path}.attn2.to_q", (second.to_q,), _affine(block.norm2))
            yield _after_attention(f"{path}.attn1", first)
            yield _after_attention(f"{path}.attn2", second)
            yield from _feed_forward(f"{path}.ff", block.ff, block.norm3)
        elif isinstance(block, TemporalBlock):
            pairs: Any = zip(block.norms, block.attention_blocks, strict=True)
            for index, (norm, attention) in enumerate(pairs):
                where = f"{path}.attention_blocks.{index}"
                producers = (*_affine(norm), _Producer(attention.pos_encoder, "pe", axis=2))
                yield SmoothingGroup(f"{where}.to_q", (attention.to_q, attention.to_k, attention.to_v), producers)
                yield _after_attention(where, attention)
            yield from _feed_forward(f"{path}.ff", block.ff, block.ff_norm)
        elif isinstance(block, TemporalTransformer):
            yield SmoothingGroup(f"{path}.proj_in", (block.proj_in,), _affine(block.norm))


def _affine(norm: nn.Module) -> tuple[_Producer, ...]:
    return _Producer(norm, "weight"), _Producer(norm, "bias")


def _after_attention(path: str, attention: Attention) -> SmoothingGroup:
    """The output projection: attention mixes tokens and never channels, so the factor goes into the values' rows."""
    output = attention.to_out[0]
    assert isinstance(output, nn.Linear)  # noqa: S101  (a ModuleList has no types)
    return SmoothingGroup(f"{path}.to_out.0", (output,), (_Producer(attention.to_v, "weight"),))


def _feed_forward(path: str, feed_forward: FeedForward, norm: nn.Module) -> Iterator[SmoothingGroup]:
    gated, last = feed_forward.net[0].proj, feed_forward.net[2]
    assert isinstance(gated, nn.Linear) and isinstance(last, nn.Linear)  # noqa: S101, PT018
    yield SmoothingGroup(f"{path}.net.0.proj", (gated,), _affine(norm))
    # value * gelu(gate): the values are the first half of the rows.
    half = tuple(_Producer(gated, name, stop=last.in_features) for name in ("weight", "bias"))
    yield SmoothingGroup(f"{path}.net.2", (last,), half)


def smoothing_factors(group: SmoothingGroup, largest: Tensor, alpha: float) -> NDArray[np.float32]:
    """Factors float32 [channels] of a group whose input has `largest` absolute values [channels].

    largest ** alpha / weights ** (1 - alpha), scaled to a geometric mean of 1; 1 where a channel is unused.
    """
    weights = torch.stack([reader.weight.detach().abs().amax(dim=0) for reader in group.readers]).amax(dim=0)
    used = (largest > 0) & (weights > 0)
    factors = torch.ones_like(largest)
    if used.any():
        raw = largest[used].double() ** alpha / weights[used].double() ** (1 - alpha)
        factors[used] = (raw / raw.log().mean().exp()).clamp(1e-2, 1e2).float()
    return factors.numpy()


def fold(module: nn.Module, factors: Mapping[str, NDArray[np.float32]]) -> None:
    """Fold the factors of each group, by name, into `module` in place: its outputs stay the same but for rounding."""
    for group in smoothing_groups(module):
        if group.name not in factors:
            continue
        scale = torch.from_numpy(factors[group.name])
        for producer in group.producers:
            producer.divide(scale)
        for reader in group.readers:
            reader.weight = nn.Parameter(reader.weight.detach() * scale, requires_grad=False)
