"""The layers of a plan as its builder told them: readable on any machine, kept beside the plan.

At its most talkative TensorRT prints every layer of a finished engine, a line each, with tensors, tactic and the ONNX
nodes that it stands for. The engine inspector tells the same, but needs a GPU.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lsx.errors import IntegrityError

__all__ = ["Fusions", "LayerTable", "PlanLayer", "PlanTensor", "layers_in_log", "read_table", "told_kinds"]

_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\]"
    r"(?:, Constants: \[(?P<constants>.*?)\])?, Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>.*?)"
    r"(?:, StreamId: .*?)?(?:, Metadata: (?P<metadata>.*))?$"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[-\d,]*)\].*?Datatype: (?P<dtype>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_BITS = {"Float": 32, "Half": 16, "BFloat16": 16, "Int8": 8, "UInt8": 8, "FP8": 8, "Int32": 32, "Int64": 64, "Bool": 8}
_ATTENTION, _NORM = "ATTENTION", "NORMALIZATION"
_TOLD = {"ATTENTION_INPUT": _ATTENTION, "NORMALIZATION": _NORM, "NORMALIZATION_V2": _NORM}  # of TensorRT's layer types
_MOVES = re.compile(r"^__myl_(Resh|Tran|Move)+_")
"""Names of generated kernels that only move tensors."""
_SYNCHRONISING = ("signal", "wait")


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """A tensor that a layer reads or writes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """TensorRT's word: Float, Half, BFloat16, Int8, FP8, Int32 and others."""

    @property
    def size(self) -> int:
        """Bytes of its values, without padding; lengths that vary count as 1, types that are not known as 32 bits."""
        return math.prod(max(n, 1) for n in self.shape) * _BITS.get(self.dtype, 32) // 8


@dataclass(frozen=True, slots=True)
class PlanLayer:
    """One layer of a built plan: a kernel, or several that TensorRT counts as one."""

    name: str
    kind: str
    """TensorRT's word: kgen (generated code), gemm, correlation (a convolution), runtime_fusion and others."""
    tactic: str
    nodes: tuple[str, ...]
    """Names of the ONNX nodes that it computes, or takes part in computing."""
    inputs: tuple[PlanTensor, ...]
    constants: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]

    @property
    def precision(self) -> str:
        """The first output's dtype; empty where there is no output."""
        return self.outputs[0].dtype if self.outputs else ""

    moved: int = 0
    """Bytes read and written, each tensor once: what has to move if nothing stays in a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusions:
    """How a plan computes a graph's attentions and norms. Each count is of ONNX nodes."""

    attentions: int
    attentions_in_one: int
    """Attentions in one layer, scores and all."""
    norms: int
    norms_alone: int
    """Norms in one layer that computes nothing else."""
    norms_with_neighbours: int
    """Norms in one layer together with other nodes."""

    @property
    def norms_apart(self) -> int:
        """Taken apart into several layers."""
        return self.norms - self.norms_alone - self.norms_with_neighbours


@dataclass(frozen=True, slots=True)
class LayerTable:
    """All layers of a plan, and which nodes of its graph are attentions and norms."""

    layers: tuple[PlanLayer, ...]
    kinds: Mapping[str, str]
    """Names of the network's attention and norm layers, which are the ONNX nodes', to `ATTENTION`, `NORMALIZATION`."""

    @property
    def moved(self) -> int:
        """Bytes that all layers read and write."""
        return sum(layer.moved for layer in self.layers)

    @property
    def varying(self) -> bool:
        """Whether the plan has lengths that vary, which `moved` counts as 1."""
        return any(n < 0 for layer in self.layers for tensor in layer.outputs for n in tensor.shape)

    def fusions(self) -> Fusions:
        """What became of attentions and norms."""
        holding: dict[str, list[PlanLayer]] = {name: [] for name in self.kinds}
        for layer in self.layers:
            for node in dict.fromkeys(layer.nodes):
                if node in holding and layer.kind not in _SYNCHRONISING:
                    holding[node].append(layer)
        counted: Counter[str] = Counter()
        for name, kind in self.kinds.items():
            working = [layer for layer in holding[name] if layer.inputs]
            if kind == _ATTENTION:  # the few tokens of the sound are laid out anew before it
                working = [layer for layer in working if not _MOVES.match(layer.name)]
            counted[kind] += 1
            if len(working) == 1:
                alone = set(working[0].nodes) == {name}
                counted[f"{kind} {'alone' if alone else 'beside'}"] += 1
        return Fusions(
            attentions=counted[_ATTENTION],
            attentions_in_one=counted[f"{_ATTENTION} alone"] + counted[f"{_ATTENTION} beside"],
            norms=counted[_NORM],
            norms_alone=counted[f"{_NORM} alone"],
            norms_with_neighbours=counted[f"{_NORM} beside"],
        )

    def packed(self) -> bytes:
        """Return the content of a file: JSON, compressed, the same for the same table."""
        content = {"kinds": dict(self.kinds), "layers": [asdict(layer) for layer in self.layers]}
        return gzip.compress(json.dumps(content).encode(), mtime=0)


def read_table(packed: bytes) -> LayerTable:
    """A table from a file's content. Raises IntegrityError."""
    try:
        content = json.loads(gzip.decompress(packed))
        return LayerTable(_counted(_layer(one) for one in content["layers"]), content["kinds"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"the plan's layer table is damaged ({error}). Build the plan again") from error


def _layer(content: Mapping[str, Any]) -> PlanLayer:
    inputs, constants, outputs = (
        tuple(PlanTensor(t["name"], tuple(t["shape"]), t["dtype"]) for t in content[name])
        for name in ("inputs", "constants", "outputs")
    )
    nodes = tuple(content["nodes"])
    return PlanLayer(content["name"], content["kind"], content["tactic"], nodes, inputs, constants, outputs)


def told_kinds(network: Any) -> dict[str, str]:
    """Names of the attentions and norms of a parsed network, which are the ONNX nodes', with what they are."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    # An attention is several layers of the network; the plan's are named after the node.
    return {
        layer.name.removesuffix("_AttentionInput"): _TOLD[layer.type.name]
        for layer in layers
        if layer.type.name in _TOLD
    }


def layers_in_log(messages: Iterable[str]) -> tuple[PlanLayer, ...]:
    """The layers that a builder printed in its log; none where it printed them in another form.

    Views of one tensor are summed, up to the whole: attention reads q, k and v as three parts of what one layer wrote.
    """
    layers = []
    for message in messages:
        for line in message.splitlines():
            match = _LINE.match(line.strip())
            if match is None:
                continue
            layers.append(
                PlanLayer(
                    name=match["name"],
                    kind=match["kind"],
                    tactic=match["tactic"].strip(),
                    nodes=tuple(_NODE.findall(match["metadata"] or "")),
                    inputs=_tensors(match["inputs"]),
                    constants=_tensors(match["constants"] or ""),
                    outputs=_tensors(match["outputs"]),
                )
            )
    return _counted(layers)


def _counted(layers: Iterable[PlanLayer]) -> tuple[PlanLayer, ...]:
    """Add to each the bytes that it moves."""
    layers = tuple(layers)
    whole: dict[str, int] = {}
    for layer in layers:
        for tensor in (*layer.outputs, *layer.constants):
            whole[tensor.name] = max(tensor.size, whole.get(tensor.name, 0))
    return tuple(replace(layer, moved=_moved(layer, whole)) for layer in layers)


def _moved(layer: PlanLayer, whole: Mapping[str, int]) -> int:
    """Bytes that a layer moves. whole : sizes of the tensors that layers write, by name."""
    read: dict[str, list[int]] = {}
    for tensor in (*layer.inputs, *layer.constants):
        read.setdefault(tensor.name, []).append(tensor.size)
    total = sum(min(sum(sizes), whole.get(name, max(sizes))) for name, sizes in read.items())
    return total + sum({tensor.name: tensor.size for tensor in layer.outputs}.values())


def _tensors(text: str) -> tuple[PlanTensor, ...]:
    return tuple(
        PlanTensor(m["name"], tuple(int(n) for n in m["shape"].split(",") if n), m["dtype"])
        for m in _TENSOR.finditer(text)
    )
