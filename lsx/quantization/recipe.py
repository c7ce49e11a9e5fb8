"""A recipe: which layers of a graph are quantized, with which ranges and smoothing, and why the others are not."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lsx.core.tensors import LowPrecision
from lsx.graphs.modules import GraphModule
from lsx.quantization.qdq_layers import QuantizedLayer, quantized_layer
from lsx.quantization.smoothing import fold, smoothing_groups

__all__ = ["ALWAYS_FP16", "TARGET_GRAPHS", "Layer", "Recipe", "apply_recipe", "layers_of", "replace_layer", "smooth"]

TARGET_GRAPHS: dict[str, tuple[str, ...]] = {"unet": ("unet", "unet_shallow"), "vae_decoder": ("vae_decoder",)}
"""Graphs that share a recipe, because they share weights, by the first of them."""

ALWAYS_FP16: dict[str, tuple[tuple[str, str], ...]] = {
    "unet": (
        ("conv_in", "first convolution"),
        ("conv_out", "last convolution"),
        ("time_embedding.*", "time embedding"),
        ("*.time_emb_proj", "time embedding: one row a forward"),
    ),
    "vae_decoder": (
        ("post_quant_conv", "first convolution"),
        ("decoder.conv_in", "first convolution"),
        ("decoder.conv_out", "last convolution"),
    ),
}
"""(pattern of the checkpoint's layer names, reason), by target."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A linear layer or convolution of a graph's module."""

    name: str
    """The checkpoint's."""
    path: str
    """The layer's name in the module."""
    module: nn.Module
    reason: str | None
    """Why it always stays fp16, or None."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recipe:
    """How one target is quantized. Layers by the checkpoint's names."""

    target: str
    precision: LowPrecision
    method: str
    """How the ranges were found: max, percentile or mse."""
    ranges: Mapping[str, float]
    """Largest absolute input of every layer that could be quantized, after smoothing."""
    smoothing: Mapping[str, NDArray[np.float32]]
    """Factors float32 [channels], by the group's first layer."""
    kept: Mapping[str, str]
    """Layers that stay fp16, with the reason."""

    def quantizes(self, name: str) -> bool:
        """Whether the layer `name` is quantized."""
        return name in self.ranges and name not in self.kept


def layers_of(module: GraphModule, target: str) -> Iterator[Layer]:
    """Every linear layer and convolution of `module`, in its order."""
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, QuantizedLayer)):
            name = module.checkpoint_name(path)
            reason = next((r for pattern, r in ALWAYS_FP16[target] if fnmatch.fnmatchcase(name, pattern)), None)
            yield Layer(name, path, layer, reason)


def smooth(module: GraphModule, smoothing: Mapping[str, NDArray[np.float32]]) -> None:
    """Fold a recipe's smoothing into `module`, where its layers have other paths."""
    paths = {module.checkpoint_name(group.name): group.name for group in smoothing_groups(module)}
    fold(module, {paths[name]: factors for name, factors in smoothing.items() if name in paths})


def apply_recipe(module: GraphModule, recipe: Recipe) -> None:
    """Smooth `module`, and put quantized layers in place of its own. The module is in float32."""
    smooth(module, recipe.smoothing)
    for layer in list(layers_of(module, recipe.target)):
        if recipe.quantizes(layer.name):
            replace_layer(
                module, layer.path, quantized_layer(layer.module, recipe.ranges[layer.name], recipe.precision)
            )


def replace_layer(module: nn.Module, path: str, layer: nn.Module) -> None:
    """Put `layer` at `path` in `module`."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, layer)
