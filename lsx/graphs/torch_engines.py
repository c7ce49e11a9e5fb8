"""The reference modules behind the engine contract, on the CPU or on the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lsx.core.tensors import Dtype, Precision, TensorSpec, base_precision
from lsx.engines.cuda_device import shared_device
from lsx.engines.device import Stream
from lsx.engines.device_engine import Context, DeviceEngine
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.engines.registry import EngineOptions
from lsx.errors import CheckpointError, EngineError, OutOfDeviceMemory
from lsx.graphs.graph_specs import GRAPHS, GraphSpec
from lsx.graphs.precision import to_precision
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import files_behind

if TYPE_CHECKING:
    from lsx.bundle.bundle import Bundle

__all__ = ["TorchCudaEngine", "TorchEngine", "reference_checkpoint", "torch_engine"]


class TorchEngine(Engine):
    """A reference module in float32 on the CPU."""

    def __init__(self, spec: GraphSpec, checkpoint: Checkpoint, inputs: list[TensorSpec], outputs: list[TensorSpec]):
        super().__init__(spec.name, [s.as_float32() for s in inputs], [s.as_float32() for s in outputs])
        self.module: torch.nn.Module | None = spec.build(checkpoint).eval()
        self._names = spec.outputs

    @property
    def description(self) -> str:
        return f"torch {torch.__version__}, float32 on the CPU"

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        if self.module is None:
            raise EngineError(f"{self.graph}: the engine is closed")
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.ascontiguousarray(feed_dict[n])) for n in self.inputs]
            result = self.module(*tensors)
        results = result if isinstance(result, tuple) else (result,)
        named = dict(zip(self._names, results, strict=True))
        return {name: named[name].numpy() for name in self.outputs}

    def close(self) -> None:
        self.module = None


class TorchCudaEngine(DeviceEngine):
    """A reference module on the GPU, in the bundle's precision, over buffers of ours.

    What it allocates as it runs comes from a pool of its own: a captured graph goes on using those addresses, and
    nothing else is given them. Runs follow one another, as with activation memory that is shared.
    """

    def __init__(
        self,
        spec: GraphSpec,
        checkpoint: Checkpoint,
        precision: Precision,
        inputs: list[TensorSpec],
        outputs: list[TensorSpec],
    ) -> None:
        super().__init__(spec.name, inputs, outputs, shared_device())
        self._names = spec.outputs
        module = to_precision(spec.build(checkpoint).eval().requires_grad_(False), spec.name, base_precision(precision))
        with self.device.lock, _memory_told(self.graph):
            self.module: torch.nn.Module | None = module.to("cuda")
        self._pool: torch.cuda.MemPool | None = torch.cuda.MemPool()

    @property
    def description(self) -> str:
        return f"torch {torch.__version__} on {torch.cuda.get_device_name()}"

    def context(self, axes: Mapping[str, int]) -> Context:
        return _TorchContext(self, axes)

    def enqueue(self, axes: Mapping[str, int], addresses: Mapping[str, int], stream: Stream) -> None:
        """Enqueue one run at these lengths, over the tensors at `addresses`."""
        if self.module is None or self._pool is None:
            raise EngineError(f"{self.graph}: the engine is closed")
        ours = torch.cuda.stream(torch.cuda.ExternalStream(stream))
        with _memory_told(self.graph), torch.cuda.use_mem_pool(self._pool), ours, torch.inference_mode():
            result = self.module(*(_at(addresses[name], spec, axes) for name, spec in self.inputs.items()))
            results = result if isinstance(result, tuple) else (result,)
            named = dict(zip(self._names, results, strict=True))
            for name, spec in self.outputs.items():
                _at(addresses[name], spec, axes).copy_(named[name])

    def close(self) -> None:
        self.release_buffers()
        with self.device.lock:
            self.module = self._pool = None


class _TorchContext(Context):
    """A module's engine at one set of lengths."""

    activation_bytes = 0  # PyTorch's allocator has its own

    def __init__(self, engine: TorchCudaEngine, axes: Mapping[str, int]) -> None:
        self._engine, self._axes = engine, dict(axes)

    def capturable(self, stream: Stream) -> bool:
        del stream
        return True

    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        self._engine.enqueue(self._axes, addresses, stream)


def _at(address: int, spec: TensorSpec, axes: Mapping[str, int]) -> torch.Tensor:
    """The tensor that lies at an address."""
    memory = _Memory(address, spec.shape_at(axes), _TYPES[spec.dtype])
    tensor: torch.Tensor = torch.as_tensor(memory, device="cuda")
    return tensor.view(torch.bfloat16) if spec.dtype == "bfloat16" else tensor


@contextmanager
def _memory_told(graph: str) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            f"{graph}: PyTorch found no more memory ({str(error).splitlines()[0]}). Close other programs on this GPU"
        ) from error


_TYPES: dict[Dtype, str] = {"float32": "<f4", "float16": "<f2", "bfloat16": "<i2", "uint8": "|u1", "int64": "<i8"}


class _Memory:
    """Device memory as PyTorch takes it over: the CUDA array interface, version 3."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": kind, "data": (address, False), "version": 3}


def torch_engine(bundle: Bundle, graph: str, options: EngineOptions) -> Engine:
    """A graph's module behind the engine contract: on the GPU where there is one, else in float32 on the CPU.

    Raises CheckpointError, EngineError.
    """
    entry = bundle.graph(graph)
    if not {tensor.name for tensor in entry.outputs} <= set(GRAPHS[graph].outputs):  # fewer were given once
        raise EngineError(
            f"{bundle.path}: its {graph} is another than this lsx exports (lsx {bundle.manifest.lsx_version} did). "
            f"Export again: lsx export CHECKPOINT -o {bundle.path}"
        )
    checkpoint = reference_checkpoint(bundle, options.checkpoint_dir)
    inputs, outputs = [t.spec() for t in entry.inputs], [t.spec() for t in entry.outputs]
    if torch.cuda.is_available():
        precision = entry.precision
        if options.float32:
            precision, inputs, outputs = "fp32", [s.as_float32() for s in inputs], [s.as_float32() for s in outputs]
        return TorchCudaEngine(GRAPHS[graph], checkpoint, precision, inputs, outputs)
    return TorchEngine(GRAPHS[graph], checkpoint, inputs, outputs)


def reference_checkpoint(bundle: Bundle, folder: Path | str | None) -> Checkpoint:
    """The checkpoint that `bundle` was made from: in `folder`, or where the export found it.

    Raises CheckpointError when it is not there, or is another.
    """
    model = bundle.manifest.model
    where = Path(folder or model.source)
    files = files_behind(bundle.path, where)
    released = model.version if model.version.startswith("latentsync-") else None
    checkpoint = Checkpoint(files, model=released)
    digests = checkpoint.hashes()
    for component, digest in model.checkpoint.items():
        if digests.get(component) != digest:
            raise CheckpointError(
                f"{where}: its {component} is not the one that {bundle.path} was made from. "
                "Give the right folder (--checkpoint-dir DIR), or export again"
            )
    return checkpoint
