"""The torch backend. Loaded by name, never by the serving side; PyTorch itself is not imported before it is to run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from lsx.core.graph_names import MODEL_GRAPHS
from lsx.engines.engine import Engine
from lsx.engines.gpu_info import first_gpu
from lsx.engines.registry import Backend, EngineOptions
from lsx.errors import BackendUnavailable, EngineError
from lsx.models.checkpoint_files import files_behind

if TYPE_CHECKING:
    from lsx.bundle.bundle import Bundle

__all__ = ["TorchBackend"]


class TorchBackend(Backend):
    """PyTorch, from the checkpoint that the bundle was made from."""

    name = "torch"

    def availability(self) -> tuple[bool, str]:
        try:
            return True, f"{version('torch')} on {_device()}; needs the checkpoint"
        except PackageNotFoundError:
            return False, "torch is not installed. Install it: pip install 'lsx[export]'"

    def check(self, bundle: Bundle, options: EngineOptions | None = None) -> None:
        """The same, and CheckpointError where the checkpoint is not in the folder that `options` name."""
        super().check(bundle, options)
        if options is not None:
            files_behind(bundle.path, Path(options.checkpoint_dir or bundle.manifest.model.source))

    def supports(self, graph: str) -> bool:
        return graph in MODEL_GRAPHS

    def engine(self, bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
        if not self.supports(graph):
            raise EngineError(f"{graph} has no PyTorch module; it runs on onnxruntime")
        self.check(bundle, options)
        try:
            from lsx.graphs.torch_engines import torch_engine
        except ImportError as error:
            raise BackendUnavailable(
                f"backend torch needs {error.name}, which is not installed. See: lsx doctor"
            ) from error
        return torch_engine(bundle, graph, options)


def _device() -> str:
    """The GPU that PyTorch sees; it is asked only where there is one, for it takes seconds to import."""
    try:
        first_gpu()
        import torch
    except BackendUnavailable:
        return "CPU"

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "CPU"
