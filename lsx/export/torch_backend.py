"""The torch backend: the reference modules behind the engine contract. Loaded by name, never by the serving side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lsx.engines.engine import Array, Engine, FeedDict
from lsx.engines.registry import Backend, EngineOptions
from lsx.errors import CheckpointError, EngineError
from lsx.export.graphs import GRAPHS, GraphSpec
from lsx.models.checkpoint import Checkpoint, CheckpointFiles
from lsx.specs import TensorSpec

if TYPE_CHECKING:
    from lsx.bundle import Bundle

__all__ = ["TorchBackend", "TorchEngine"]


class TorchEngine(Engine):
    """A reference module in float32 on the GPU, or on the CPU where there is none."""

    def __init__(self, spec: GraphSpec, checkpoint: Checkpoint, inputs: list[TensorSpec], outputs: list[TensorSpec]):
        super().__init__(spec.name, [_wide(s) for s in inputs], [_wide(s) for s in outputs])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module: torch.nn.Module | None = spec.build(checkpoint).eval().to(self.device)

    @property
    def description(self) -> str:
        return f"torch {torch.__version__}, float32 on {self.device}"

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        if self.module is None:
            raise EngineError(f"{self.graph}: the engine is closed")
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.ascontiguousarray(feed_dict[n])).to(self.device) for n in self.inputs]
            result = self.module(*tensors)
        results = result if isinstance(result, tuple) else (result,)
        return {name: value.cpu().numpy() for name, value in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        self.module = None


class TorchBackend(Backend):
    """PyTorch, from the checkpoint that the bundle was made from."""

    name = "torch"

    def availability(self) -> tuple[bool, str]:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        return True, f"{torch.__version__} on {device}; needs the checkpoint"

    def supports(self, graph: str) -> bool:
        return graph in GRAPHS

    def engine(self, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
        entry = bundle.graph(graph)
        if not self.supports(graph):
            raise EngineError(f"{graph} has no PyTorch module; it runs on onnxruntime")
        checkpoint = reference_checkpoint(bundle, options.reference)
        return TorchEngine(
            GRAPHS[graph], checkpoint, [t.spec() for t in entry.inputs], [t.spec() for t in entry.outputs]
        )


def reference_checkpoint(bundle: Bundle, folder: Path | None) -> Checkpoint:
    """The checkpoint that `bundle` was made from: in `folder`, or where the export found it.

    Raises CheckpointError when it is not there, or is another.
    """
    model = bundle.manifest.model
    where = folder or Path(model.source)
    if not where.is_dir():
        raise CheckpointError(
            f"{where}: the torch backend needs the checkpoint that {bundle.path} was made from. "
            "Say where it is: --reference DIR"
        )
    released = model.version if model.version.startswith("latentsync-") else None
    checkpoint = Checkpoint(CheckpointFiles.in_folder(where), model=released)
    found = checkpoint.hashes()
    for part, digest in model.checkpoint.items():
        if found.get(part) != digest:
            raise CheckpointError(
                f"{where}: its {part} is not the one that {bundle.path} was made from. "
                "Give the right folder (--reference DIR), or export again"
            )
    return checkpoint


def _wide(spec: TensorSpec) -> TensorSpec:
    return spec if spec.dtype == "uint8" else TensorSpec(name=spec.name, dtype="float32", shape=spec.shape)
