"""What TensorRT makes of a graph: the parsed network on any machine, the plan's own layers where there is a GPU."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import PlanEntry
from lsx.engines.gpu_info import driver_runtime
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import profiles_of
from lsx.engines.tensorrt.layer_table import LayerTable, PlanLayer, PlanTensor, read_table
from lsx.engines.tensorrt.libraries import Library
from lsx.engines.tensorrt.network import collecting_logger, network_from_graph, set_shapes
from lsx.engines.tensorrt.plans import engine_from_plan

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["ParsedNetwork", "parsed_network", "plan_layers", "plan_table"]

_SHAPES_ONLY = (
    "CONSTANT",
    "SHAPE",
    "SHUFFLE",
    "SQUEEZE",
    "UNSQUEEZE",
    "CAST",
    "IDENTITY",
    "SLICE",
    "GATHER",
    "CONCATENATION",
)
"""Layers that move or rename numbers and compute none: their precision says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedNetwork:
    """A graph as TensorRT's parser sees it, before anything is fused."""

    layers: Mapping[str, int]
    """Layers by type."""
    precisions: Mapping[str, int]
    """Computing layers by the type of their first output: HALF, FLOAT, BF16, INT8, FP8."""
    float32_layers: Mapping[str, int]
    """Computing layers that give float32, by type."""
    kept_float32: tuple[str, ...]
    """Why they do: the graph's islands, and its edges."""
    activation_bytes: int
    """Most bytes of tensors alive at once, layer by layer: an upper bound, for fusing needs less."""


def parsed_network(bundle: Bundle, graph: str, library: Library, options: BuildOptions | None = None) -> ParsedNetwork:
    """Parse a graph at the lengths a plan is built for. Raises BuildError, BackendUnavailable."""
    if TYPE_CHECKING:
        import tensorrt_rtx_bindings as trt
    else:
        trt = library.module()
    entry = bundle.graph(graph)
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network, _parser = network_from_graph(library, builder, logger, bundle, graph)
    profiles = profiles_of(entry, bundle.model, (options or BuildOptions()).of_bundle(bundle))
    # Only shapes are wanted: the best lengths of the first profile stand for all.
    fixed = ({axis: (best, best, best) for axis, (_, best, _) in profiles[0].items()},)
    set_shapes(library, builder, network, builder.create_builder_config(), entry, fixed)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = [layer.type.name for layer in layers]
    computing = [(k, layer) for k, layer in zip(kinds, layers, strict=True) if k not in _SHAPES_ONLY]
    typed = [(kind, layer.get_output(0).dtype.name) for kind, layer in computing if layer.get_output(0) is not None]
    wide = Counter(kind for kind, dtype in typed if dtype == "FLOAT")
    reasons = list(entry.islands)
    if wide and entry.precision != "fp32":
        reasons.append("edges: pixels, VAE sampling, guidance and the scheduler step are float32 by contract")
    return ParsedNetwork(
        layers=dict(Counter(kinds).most_common()),
        precisions=dict(Counter(dtype for _, dtype in typed).most_common()),
        float32_layers=dict(wide.most_common()),
        kept_float32=tuple(reasons),
        activation_bytes=_peak(layers, kinds),
    )


def _bytes(tensor: trt.ITensor) -> int:
    dims: Any = tensor.shape  # iterable, which the stubs do not know
    return int(math.prod(max(n, 0) for n in dims)) * max(int(tensor.dtype.itemsize), 1)


def _peak(layers: list[trt.ILayer], kinds: list[str]) -> int:
    """Bytes alive at the worst layer, constants apart; each tensor lives from its layer to its last reader."""
    last: dict[str, int] = {}
    for index, layer in enumerate(layers):
        for position in range(layer.num_inputs):
            tensor: trt.ITensor | None = layer.get_input(position)
            if tensor is not None:
                last[tensor.name] = index
    ending: dict[int, int] = {}
    alive = peak = 0
    for index, (layer, kind) in enumerate(zip(layers, kinds, strict=True)):
        if kind not in ("CONSTANT", "SHAPE"):
            for position in range(layer.num_outputs):
                output = layer.get_output(position)
                size = _bytes(output)
                alive += size
                end = max(last.get(output.name, index), index)
                ending[end] = ending.get(end, 0) + size
        peak = max(peak, alive)
        alive -= ending.pop(index, 0)
    return peak


def plan_table(bundle: Bundle, plan: PlanEntry) -> LayerTable | None:
    """The layers of a plan as its builder told them, on any machine; None where it did not. Raises IntegrityError."""
    if plan.layers is None:
        return None
    bundle.verify([plan.layers])
    return read_table((bundle.path / plan.layers.path).read_bytes())


def plan_layers(bundle: Bundle, plan: PlanEntry, library: Library) -> list[PlanLayer]:
    """The layers of a plan as the engine inspector tells them, without sizes.

    Needs a GPU: raises BackendUnavailable, StaleEngine.
    """
    driver_runtime()
    if TYPE_CHECKING:
        import tensorrt_rtx_bindings as trt
    else:
        trt = library.module()
    logger = collecting_logger(trt)
    runtime = trt.Runtime(logger)
    engine = engine_from_plan(runtime, logger, bundle, plan)
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return [_layer(item) for item in json.loads(text)["Layers"]]


def _layer(item: Any) -> PlanLayer:
    """Inspector entries are objects in a detailed plan, and bare names in others."""
    if not isinstance(item, dict):
        item = {"Name": str(item)}
    outputs = item.get("Outputs") or []
    return PlanLayer(
        name=str(item.get("Name", "")),
        kind=str(item.get("LayerType", "")),
        tactic=str(item.get("TacticName", item.get("TacticValue", ""))),
        nodes=(),
        inputs=(),
        constants=(),
        outputs=tuple(PlanTensor("", (), str(one.get("Format/Datatype", ""))) for one in outputs[:1]),
    )
