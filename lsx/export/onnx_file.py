"""Writing ONNX files: weights that graphs share, a copy in float32."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx_ir as ir

__all__ = ["OPSET", "WeightStore", "save_model", "widen"]

OPSET = 23
"""GroupNormalization is one operator from 21 on, Conv takes bfloat16 from 22, Attention is one operator from 23."""

_EXTERNAL_BYTES = 4096  # smaller initializers stay in the .onnx file
_ALIGNMENT = 4096  # so that ONNX Runtime and TensorRT can map the weights


class WeightStore:
    """The weights of a bundle's graphs in `<graph>.onnx.data` files; equal ones are stored once for all graphs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, str], tuple[str, int, int]] = {}

    def externalise(self, model: ir.Model, file: str) -> tuple[str, ...]:
        """Move the large initializers of `model` out; returns the names of the data files that it then refers to."""
        data = f"{file}.data"
        used = []
        with (self.folder / data).open("ab") as stream:
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _EXTERNAL_BYTES:
                    continue
                content = tensor.tobytes()
                key = (hashlib.sha256(content).hexdigest(), str(tensor.dtype))
                if key not in self._known:
                    stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
                    self._known[key] = (data, stream.tell(), len(content))
                    stream.write(content)
                location, offset, length = self._known[key]
                used.append(location)
                value.const_value = ir.ExternalTensor(
                    location,
                    offset,
                    length,
                    tensor.dtype,
                    shape=ir.Shape([int(n) for n in tensor.numpy().shape]),
                    name=value.name or "",
                    base_dir=self.folder,
                )
        if data not in used:
            (self.folder / data).unlink()
        return tuple(sorted(set(used)))


def save_model(model: ir.Model, path: Path, store: WeightStore | None = None) -> tuple[str, ...]:
    """Write `model` to `path`, its weights to `store`; returns the names of its data files."""
    model.producer_name, model.producer_version, model.doc_string = "lsx", None, None
    model.ir_version = 10
    files = () if store is None else store.externalise(model, path.name)
    ir.save(model, path)
    return files


def widen(path: Path, target: Path) -> None:
    """A float32 copy of a model of lower precision: the same weights, every cast to that precision one to float32."""
    model = ir.load(path)
    wide, narrow = ir.DataType.FLOAT, (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in narrow:
            value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
            value.dtype = wide
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() in [int(n) for n in narrow]:
            node.attributes["to"] = ir.AttrInt64("to", int(wide))
        if node.op_type == "ConstantOfShape" and node.attributes["value"].as_tensor().dtype in narrow:
            one = node.attributes["value"].as_tensor().numpy().astype(np.float32)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(one))
        for output in node.outputs:
            if output.dtype in narrow:
                output.dtype = wide
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype in narrow:
            value.dtype = wide
    ir.save(model, target, external_data=f"{target.name}.data")
