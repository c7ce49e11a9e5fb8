"""What an export needs to quantize: recipes, and the check that the graph it wrote is quantized as they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from torch import nn

from lsx.errors import ExportError
from lsx.graphs.modules import GraphModule
from lsx.quantization.qdq_layers import QuantizedLayer
from lsx.quantization.recipe import TARGET_GRAPHS, Recipe, layers_of

__all__ = ["Quantization", "check_coverage", "operators_of_weights"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantization:
    """Recipes of all that is quantized, and what is written beside the graphs."""

    recipes: Mapping[str, Recipe]
    """Recipes by target."""
    flops: Mapping[str, Mapping[str, float]]
    """FLOPs by target and layer, of one forward of the target's first graph."""
    feeds: Mapping[str, Mapping[str, NDArray[Any]]]
    """Inputs by graph, of one recorded sample, float32 or uint8."""
    calibration: str
    """SHA-256 of the calibration's manifest."""
    method: str
    """How ranges were found, for people."""
    files: Mapping[str, bytes]
    """Contents by file name, for the bundle's folder `quantization`."""

    def recipe_of(self, graph: str) -> Recipe | None:
        """The recipe of the target that `graph` belongs to, or None where it is not quantized."""
        return next(
            (
                self.recipes[target]
                for target, graphs in TARGET_GRAPHS.items()
                if graph in graphs and target in self.recipes
            ),
            None,
        )


def check_coverage(graph: str, model: ir.Model, module: nn.Module, recipe: Recipe, flops: Mapping[str, float]) -> float:
    """The share of FLOPs that is quantized in `model`, after the check that it is so layer by layer.

    module : what `model` was traced from. Raises ExportError naming the first layer whose inputs are not both
    quantized, or which is quantized and should not be.
    """
    assert isinstance(module, GraphModule)  # noqa: S101
    operators = operators_of_weights(model)
    done = 0.0
    for layer in layers_of(module, recipe.target):
        expected = recipe.quantizes(layer.name)
        node = operators.get(
            f"{layer.path}.codes" if isinstance(layer.module, QuantizedLayer) else f"{layer.path}.weight"
        )
        if node is None and not expected:
            continue  # its weights were folded into another constant
        state = "is not in the graph" if node is None else _fault(node, expected)
        if state is not None:
            raise ExportError(f"{graph}: {layer.name} {state}. The bundle was not written; please report this")
        done += flops[layer.name] * expected
    return done / sum(flops[layer.name] for layer in layers_of(module, recipe.target))


def operators_of_weights(model: ir.Model) -> dict[str, ir.Node]:
    """The Conv, MatMul or Gemm that each weight ends in, by the weight's name."""
    operators = {}
    for name, weight in model.graph.initializers.items():
        nodes = [use.node for use in weight.uses()]
        while len(nodes) == 1 and nodes[0].op_type in ("DequantizeLinear", "Transpose"):
            nodes = [use.node for use in nodes[0].outputs[0].uses()]
        if nodes and nodes[0].op_type in ("Conv", "MatMul", "Gemm"):
            operators[name] = nodes[0]
    return operators


def _fault(node: ir.Node, wanted: bool) -> str | None:
    """What is wrong with a layer that should be quantized, or not, in words; None when nothing is."""
    quantized = [_made_by(node, 0) == "DequantizeLinear", _made_by(node, 1) == "DequantizeLinear"]
    if quantized == [wanted, wanted]:
        return None
    states = ["quantized" if q else "not quantized" for q in quantized]
    return f"has its input {states[0]} and its weights {states[1]}, but should {'be' if wanted else 'not be'} quantized"


def _made_by(node: ir.Node, index: int) -> str | None:
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    return None if producer is None else producer.op_type
