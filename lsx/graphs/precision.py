"""Precision lives in the graph: which modules stay float32, and why. One place, for every graph.

Besides these, pixels, VAE sampling, guidance and the scheduler step are float32 by how `modules.py` is written:
they are a few operations at the edges, and errors made there are not averaged out by any later layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lsx.core.tensors import FloatPrecision

__all__ = ["FP32_ISLANDS", "Island", "islands_of", "round_to_precision", "to_precision", "torch_dtype"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """A module that stays float32 in a graph of lower precision."""

    graph: str
    module: str
    """Path of the module in the graph's module."""
    reason: str


FP32_ISLANDS: tuple[Island, ...] = tuple(
    Island(
        graph=graph,
        module="unet.time_embedding",
        reason="timesteps to 1000 and their sines lose 3 digits in half precision, and every resnet block takes the "
        "result; it runs once a forward on one row",
    )
    for graph in ("unet", "unet_shallow")
)


def islands_of(graph: str) -> list[Island]:
    """The islands of one graph."""
    return [island for island in FP32_ISLANDS if island.graph == graph]


def torch_dtype(precision: FloatPrecision) -> torch.dtype:
    """The dtype of a graph's weights and activations outside its islands."""
    return _DTYPES[precision]


def to_precision(module: nn.Module, graph: str, precision: FloatPrecision) -> nn.Module:
    """`module` cast in place to `precision`, its islands float32. Buffers such as masks are cast back where used."""
    islands = [module.get_submodule(island.module) for island in islands_of(graph)]
    saved = [{name: tensor.detach().clone() for name, tensor in island.state_dict().items()} for island in islands]
    module.to(torch_dtype(precision))
    for island, state in zip(islands, saved, strict=True):
        island.float().load_state_dict(state)  # casting back alone would leave the digits lost
    return module


def round_to_precision(module: nn.Module, graph: str, precision: FloatPrecision) -> None:
    """Round weights and buffers in place to what `precision` can hold, and leave them float32.

    So the float32 module computes what the graph must compute where its arithmetic is float32, too.
    """
    islands = tuple(f"{island.module}." for island in islands_of(graph))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and not name.startswith(islands):
            tensor.copy_(tensor.to(torch_dtype(precision)))
