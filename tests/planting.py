"""Bundles of a test's own, and faults planted in their graphs, hashes and all, for the gate to find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.core.atomic_files import sha256_of


def copy_of(bundle: Bundle, folder: Path) -> Bundle:
    """A bundle of the test's own."""
    return Bundle.open(shutil.copytree(bundle.path, folder / "bundle"))


def plant(bundle: Bundle, graph: str, change: Callable[[ir.Model], None]) -> Bundle:
    """The bundle with one graph changed in both its forms, and the hashes in the manifest with it."""
    entry = bundle.graph(graph)
    files = {"file": entry.file} | ({} if entry.onnxruntime is None else {"onnxruntime": entry.onnxruntime})
    changed = {}
    for form, file in files.items():
        path = bundle.path / file.path
        model = ir.load(path)
        change(model)
        ir.save(model, path)
        changed[form] = file.model_copy(update={"sha256": sha256_of(path), "size": path.stat().st_size})
    graphs = bundle.manifest.graphs | {graph: entry.model_copy(update=changed)}
    manifest = bundle.manifest.model_copy(update={"graphs": graphs})
    (bundle.path / MANIFEST).write_text(manifest.text())
    return Bundle.open(bundle.path)


def edited(name: str, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Callable[[ir.Model], None]:
    """A change of one initializer."""

    def apply(model: ir.Model) -> None:
        value = model.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(change(value.const_value.numpy().copy()), name=name)

    return apply
