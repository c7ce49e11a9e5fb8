"""Traces without their weights, kept between exports: tracing is most of the work of a small one, and sees no weight.

A trace is known again by all that it follows from: the modules with their settings and the shapes of their weights, the
inputs, lsx's own sources, and the libraries that traced it. The weights are those of the module at hand, and the gate
judges what comes of it as it judges a fresh trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

import lsx
from lsx.core.atomic_files import write_whole
from lsx.core.cache_folder import cache_folder

__all__ = ["TraceCache", "fingerprint"]

_LIBRARIES = ("torch", "onnx", "onnxscript", "onnx-ir", "diffusers", "transformers", "numpy")
_ROOMS = ("models", "graphs", "export", "quantization", "core")
"""Of lsx: what is traced, and what is made of a trace."""
_SUFFIX = ".trace"
_KEPT = 48  # traces, of which a bundle has six; some megabytes each at full size
_INNER = frozenset({"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook"})
_LARGEST = 2**20  # bytes of what is no weight and yet stays inside
_DIGEST = hashlib.sha256().digest_size  # a file begins with the SHA-256 of the rest


def fingerprint(
    module: nn.Module,
    arguments: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Sequence[Mapping[int, str] | None] | None,
) -> str:
    """SHA-256, hexadecimal, of all that a trace follows from but for the weights."""
    digest = hashlib.sha256()
    for line in (_sources(), *_described(module)):
        digest.update(f"{line}\n".encode())
    shapes = [(str(tensor.dtype), tuple(tensor.shape)) for tensor in arguments]
    digest.update(repr((shapes, tuple(inputs), tuple(outputs), dynamic)).encode())
    return digest.hexdigest()


@cache
def _sources() -> str:
    """One hash of lsx's sources and of the versions of what it traces with."""
    digest = hashlib.sha256(repr([(name, version(name)) for name in _LIBRARIES]).encode())
    for room in _ROOMS:
        for file in sorted((Path(lsx.__file__).parent / room).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _described(module: nn.Module) -> Iterator[str]:
    """Every module of `module` with its settings, and every weight with its shape and dtype."""
    for name, part in module.named_modules(remove_duplicate=False):
        own = {key: value for key, value in vars(part).items() if key not in _INNER and not key.endswith("_hooks")}
        yield f"{name} {type(part).__module__}.{type(part).__qualname__} {_plain(own)}"
    for name, weight in _weights(module).items():
        yield f"{name} {weight.dtype} {tuple(weight.shape)}"


def _plain(value: Any) -> str:
    """A setting as text that is the same in the next process."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, set | frozenset):
        value = sorted(value, key=_plain)
    if isinstance(value, Tensor):
        value = [str(value.dtype), value.detach().cpu().double().numpy()]  # bfloat16 has no dtype in NumPy
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, list | tuple):
        return f"[{','.join(_plain(one) for one in value)}]"
    if isinstance(value, str | bytes | int | float | complex | bool | None | torch.dtype | torch.device):
        return repr(value)
    return f"{type(value).__module__}.{type(value).__qualname__} {getattr(value, '__qualname__', '')}"


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    found: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    return found | dict(module.named_buffers(remove_duplicate=False))


class TraceCache:
    """Traces in a folder of lsx's cache. What cannot be read or written there is as if it were not."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder : default that of lsx's cache; where there is no home folder to have one, nothing is kept."""
        with suppress(RuntimeError):
            folder = folder or cache_folder() / "traces"
        self._folder = folder

    def get(self, key: str, module: nn.Module) -> ir.Model | None:
        """The trace with the weights of `module`; None where there is none."""
        if self._folder is None:
            return None
        file = self._folder / f"{key}{_SUFFIX}"
        try:
            content = file.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # of a cache that is shared to read alone
            file.touch()  # for `_drop_old`
        digest, content = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(content).digest() != digest:  # damaged: traced anew, and written over
            return None
        model = ir.serde.deserialize_model(onnx.load_from_string(content))
        weights = _weights(module)
        for name, value in model.graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(weights[name].detach(), name=name)
        return model

    def put(self, key: str, model: ir.Model, module: nn.Module) -> None:
        """Keep a trace; not one of which something large is inside that is no weight of `module`."""
        if self._folder is None:
            return
        weights = _weights(module)
        tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
        if any(
            tensor is None or (name not in weights and tensor.nbytes > _LARGEST) for name, tensor in tensors.items()
        ):
            return
        try:
            for name, tensor in tensors.items():
                if name in weights and tensor is not None:
                    model.graph.initializers[name].const_value = _absent(name, tensor)
            content = ir.serde.serialize_model(model).SerializeToString()
        finally:
            for name, tensor in tensors.items():
                model.graph.initializers[name].const_value = tensor
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / f"{key}{_SUFFIX}", hashlib.sha256(content).digest() + content)
            _drop_old(self._folder)


def _drop_old(folder: Path) -> None:
    """Leave the traces that were used last."""
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[_KEPT:]:
        file.unlink(missing_ok=True)


def _absent(name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    """In place of a weight: its dtype and shape, and nobody's file."""
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor("weights", None, None, tensor.dtype, shape=shape, name=name)
