"""What is quantized with one recipe: its module, the graphs that share it, and their feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsx.calibration.store import Calibration
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.modules import GraphModule, UNetGraph
from lsx.models.checkpoint import Checkpoint
from lsx.quantization.recipe import TARGET_GRAPHS, Layer, layers_of

__all__ = ["INPUTS", "CalibrationSample", "QuantizationTarget", "hooked"]

Hook = Callable[[Layer, Tensor, Tensor], None]
"""(layer, its input, its output)"""


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSample:
    """Inputs of one forward of one graph."""

    graph: str
    tensors: tuple[Tensor, ...]


class QuantizationTarget:
    """The float32 module that is quantized with one recipe, and its recorded feeds."""

    def __init__(self, name: str, checkpoint: Checkpoint, calibration: Calibration) -> None:
        self.name = name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        module = GRAPHS[TARGET_GRAPHS[name][0]].build(checkpoint).eval().requires_grad_(False)
        assert isinstance(module, GraphModule)  # noqa: S101
        self.module: GraphModule = module.to(self.device)
        self._calibration = calibration

    def feeds(self, graph: str | None = None) -> Iterator[CalibrationSample]:
        """The recorded feeds of one graph, or of all; a shallow graph's that no loop ran are made of full ones."""
        for name in TARGET_GRAPHS[self.name] if graph is None else (graph,):
            if name == "unet_shallow" and not self._calibration.entries(name):
                yield from self._shallow_feeds()
            for arrays in self._calibration.feeds(name):
                order = INPUTS[name]
                yield CalibrationSample(name, tuple(torch.from_numpy(arrays[n]).to(self.device) for n in order))

    def _shallow_feeds(self) -> Iterator[CalibrationSample]:
        """Of loops without DeepCache: each full feed, with the deep features of the very same step."""
        for feed in self.feeds("unet"):
            with torch.inference_mode():
                deep = self.module(*feed.tensors)[1]
            yield CalibrationSample("unet_shallow", (*feed.tensors, deep))

    def first_feeds(self) -> dict[str, dict[str, Any]]:
        """The inputs of the first sample of each graph, as arrays."""
        firsts = {graph: next(self.feeds(graph)) for graph in TARGET_GRAPHS[self.name]}
        return {
            graph: {name: tensor.cpu().numpy() for name, tensor in zip(INPUTS[graph], feed.tensors, strict=True)}
            for graph, feed in firsts.items()
        }

    def run(self, feed: CalibrationSample) -> Tensor:
        """The output that errors are measured on: noise_pred, or the decoded faces in -1..1."""
        with torch.inference_mode():
            if feed.graph == "unet_shallow":
                assert isinstance(self.module, UNetGraph)  # noqa: S101
                out: Tensor = self.module.unet.forward_shallow(*feed.tensors)
            elif feed.graph == "vae_decoder":
                out = self.module(*feed.tensors)[1] / 127.5 - 1
            else:
                out = self.module(*feed.tensors)[0]
        return out

    def layers(self) -> list[Layer]:
        """Every linear layer and convolution, those that always stay fp16 included."""
        return list(layers_of(self.module, self.name))

    def flops(self) -> dict[str, float]:
        """Multiply-adds x 2 of every layer in one forward of the target's first graph, guidance batch 1."""
        counted: dict[str, float] = {}

        def count(layer: Layer, _x: Tensor, out: Tensor) -> None:
            weight: Any = layer.module.weight
            counted[layer.name] = counted.get(layer.name, 0.0) + 2.0 * out.numel() * float(np.prod(weight.shape[1:]))

        with hooked(self, count):
            self.run(next(self.feeds(TARGET_GRAPHS[self.name][0])))
        return counted


INPUTS: dict[str, tuple[str, ...]] = {
    "unet": ("sample", "timestep", "encoder_hidden_states"),
    "unet_shallow": ("sample", "timestep", "encoder_hidden_states", "deep_features"),
    "vae_decoder": ("latents", "faces"),
}


@contextmanager
def hooked(target: QuantizationTarget, hook: Hook, wanted: Callable[[Layer], bool] = lambda _: True) -> Iterator[None]:
    """Show `hook` every wanted layer's input and output while the target runs."""

    def attach(layer: Layer) -> Any:
        def show(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            hook(layer, inputs[0], out)

        return layer.module.register_forward_hook(show)

    handles = [attach(layer) for layer in target.layers() if wanted(layer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
