"""Each graph of a bundle as a model of Triton's own backends: for a loop of one's own, or for looking at one graph.

A TensorRT plan where the bundle has one of the full library, else ONNX Runtime. Plans of TensorRT for RTX do not load
in Triton.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import PlanEntry, TensorEntry
from lsx.core.graph_names import MODEL_GRAPHS

__all__ = ["GraphModel", "graph_models"]

_TYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "bfloat16": "BF16",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "bool": "BOOL",
}
_LIBRARY = "tensorrt"
_TARGET = re.compile(r"sm(\d+)(\d)")


class GraphModel:
    """One graph's model: its configuration, and the bundle's files that lie beside each other in its version."""

    def __init__(self, bundle: Bundle, graph: str, name: str, gpus: Sequence[int]) -> None:
        """name : the model's; gpus : numbers of those with an instance each, none for the CPU. Raises BundleError."""
        self.name = f"{name}-{graph}"
        self._bundle, self._graph, self._gpus = bundle, graph, gpus
        built = [plan for plan in bundle.manifest.plans if (plan.graph, plan.backend) == (graph, _LIBRARY)]
        self._plans = built if gpus else []
        if self._plans:
            self.files = tuple(plan.file.path for plan in self._plans)
        else:
            self.files = tuple(file.path for file in bundle.files(graph))

    @property
    def config(self) -> str:
        """The text of config.pbtxt."""
        entry = self._bundle.graph(self._graph)
        platform = "tensorrt_plan" if self._plans else "onnxruntime_onnx"
        kind = f"kind: KIND_GPU gpus: [ {', '.join(map(str, self._gpus))} ]" if self._gpus else "kind: KIND_CPU"
        lines = [
            "# Written by lsx triton export --graphs. The bundle's manifest.json says what each tensor is.",
            f'name: "{self.name}"',
            f'platform: "{platform}"',
            "max_batch_size: 0",
            f'default_model_filename: "{Path(self.files[0]).name}"',
            *(f'cc_model_filenames {{ key: "{key}" value: "{file}" }}' for key, file in self._capabilities()),
            *_tensors("input", entry.inputs),
            *_tensors("output", entry.outputs),
            f"instance_group [ {{ count: 1 {kind} }} ]",
            *self._warmup(entry.inputs),
        ]
        return "\n".join(lines) + "\n"

    def _capabilities(self) -> list[tuple[str, str]]:
        """Compute capabilities, as 8.9, with the plan for each."""
        found = []
        for plan in self._plans:
            target = _TARGET.fullmatch(plan.target)
            if target is not None:
                found.append((f"{target[1]}.{target[2]}", Path(plan.file.path).name))
        return found

    def _warmup(self, inputs: Sequence[TensorEntry]) -> list[str]:
        """A request of zeros, so that the first client does not wait for kernels to be chosen."""
        lengths = self._lengths()
        lines = ["model_warmup [ {", '  name: "zeros" batch_size: 0']
        for tensor in inputs:
            dims = ", ".join(str(lengths[axis] if isinstance(axis, str) else axis) for axis in tensor.shape)
            value = f"data_type: TYPE_{_TYPES[tensor.dtype]} dims: [ {dims} ] zero_data: true"
            lines.append(f'  inputs {{ key: "{tensor.name}" value {{ {value} }} }}')
        return [*lines, "} ]"]

    def _lengths(self) -> Mapping[str, int]:
        """A length for each axis that varies: with guidance, and the best of a plan."""
        model = self._bundle.model
        lengths = {"n": 1, "b": 2, "F": model.vae_frames if self._plans else model.host_vae_frames}
        return lengths | (_best(self._plans[0]) if self._plans else {})


def _best(plan: PlanEntry) -> dict[str, int]:
    return {axis: best for axis, (_, best, _) in plan.profiles[0].items()}


def _tensors(kind: str, tensors: Sequence[TensorEntry]) -> list[str]:
    rows = []
    for tensor in tensors:
        dims = ", ".join("-1" if isinstance(axis, str) else str(axis) for axis in tensor.shape)
        rows.append(f'  {{ name: "{tensor.name}" data_type: TYPE_{_TYPES[tensor.dtype]} dims: [ {dims} ] }}')
    return [f"{kind} [", ",\n".join(rows), "]"]


def graph_models(bundle: Bundle, name: str, gpus: Sequence[int]) -> list[GraphModel]:
    """The model of each graph that makes pictures or hears sound; faces are found by lsx itself."""
    return [GraphModel(bundle, graph, name, gpus) for graph in MODEL_GRAPHS]
