"""A checkpoint's own graphs as engines, without a bundle: what a training looks at while it goes on."""

from __future__ import annotations

import numpy as np
import torch

from lsx.core.tensors import Dtype, TensorSpec
from lsx.engines.engine import Engine
from lsx.graphs.graph_specs import GRAPHS, GraphSpec
from lsx.graphs.torch_engines import TorchCudaEngine, TorchEngine
from lsx.models.checkpoint import Checkpoint

__all__ = ["checkpoint_engines"]

_DTYPES: dict[str, Dtype] = {"float32": "float32", "uint8": "uint8"}


def checkpoint_engines(checkpoint: Checkpoint) -> dict[str, Engine]:
    """Every graph of `checkpoint` in float32, on the GPU where there is one. The caller closes them."""
    return {name: _engine(spec, checkpoint) for name, spec in GRAPHS.items()}


def _engine(spec: GraphSpec, checkpoint: Checkpoint) -> Engine:
    inputs, outputs = _tensors(spec, checkpoint)
    if torch.cuda.is_available():
        return TorchCudaEngine(spec, checkpoint, "fp32", inputs, outputs)
    return TorchEngine(spec, checkpoint, inputs, outputs)


def _tensors(spec: GraphSpec, checkpoint: Checkpoint) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs, by one run of the module on its example inputs."""
    module = spec.build(checkpoint).eval()
    feed = spec.example_inputs(checkpoint.spec, module, 1)
    with torch.inference_mode():
        result = module(*(torch.from_numpy(np.ascontiguousarray(value)) for value in feed.values()))
    results = result if isinstance(result, tuple) else (result,)
    input_shapes = {name: (str(value.dtype), value.shape) for name, value in feed.items()}
    output_shapes = {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in zip(spec.outputs, results, strict=True)
    }
    return [_tensor(spec, *item) for item in input_shapes.items()], [
        _tensor(spec, *item) for item in output_shapes.items()
    ]


def _tensor(spec: GraphSpec, name: str, kind: tuple[str, tuple[int, ...]]) -> TensorSpec:
    dtype, lengths = kind
    shape: list[int | str] = list(lengths)
    if name in spec.varying and spec.axis is not None:
        shape[spec.varying[name]] = spec.axis
    return TensorSpec(name=name, dtype=_DTYPES[dtype], shape=tuple(shape))
