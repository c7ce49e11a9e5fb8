"""Bundles of a test's own, and faults planted in their graphs, hashes and all, for the gate to find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import nn

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.core.atomic_files import sha256_of
from lsx.core.model_spec import ModelSpec
from lsx.export.graph_exporter import GraphExporter
from lsx.graphs.graph_specs import GRAPHS
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles


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


def without_kept(bundle: Bundle, checkpoint: Path) -> Bundle:
    """The bundle with the `step` of lsx 0.2, which takes no latents to keep."""
    step = GRAPHS["step"]

    def inputs(spec: ModelSpec, module: nn.Module, batch: int) -> dict[str, NDArray[Any]]:
        feed = step.example_inputs(spec, module, batch)
        del feed["kept"]
        return feed

    loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint))
    exporter = GraphExporter(loaded, bundle.path, bundle.manifest.precision, None)
    entry = exporter.graph(replace(step, example_inputs=inputs), lambda _: None)
    changes = {"lsx_version": "0.2.0", "graphs": bundle.manifest.graphs | {"step": entry}}
    (bundle.path / MANIFEST).write_text(bundle.manifest.model_copy(update=changes).text())
    return Bundle.open(bundle.path)
