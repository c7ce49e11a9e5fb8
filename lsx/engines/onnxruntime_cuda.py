"""ONNX Runtime's CUDA provider over buffers of ours, by I/O binding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lsx.core.tensors import Dtype, TensorSpec
from lsx.engines.device import Device, Stream
from lsx.engines.device_engine import Context, DeviceEngine
from lsx.errors import EngineError

__all__ = ["OnnxRuntimeCudaEngine"]

_ELEMENTS: dict[Dtype, int] = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10, "bfloat16": 16}
"""ONNX's numbers of the tensor types, which I/O binding takes where NumPy has no such type."""


class OnnxRuntimeCudaEngine(DeviceEngine):
    """A session of the CUDA provider. It works on a stream and in memory of its own: `enqueue` waits before and after.

    So it cannot be captured, and calls do not overlap; it is there to prove the executor on any GPU. A session is made
    for one set of lengths; that of the latest ones is kept.
    """

    def __init__(
        self,
        graph: str,
        load: Callable[[dict[str, int]], Any],
        axes: Mapping[str, int],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        device: Device,
    ) -> None:
        super().__init__(graph, inputs, outputs, device)
        device.enter()
        self._load = load
        self._turn = threading.RLock()
        self._axes = self.own_axes(axes)
        with device.lock:
            self._session = load(self._axes)
        self._bindings: dict[tuple[int, ...], Any] = {}
        self._before = device.event()

    @property
    def description(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}, CUDAExecutionProvider on bound buffers"

    def context(self, axes: Mapping[str, int]) -> Context:
        return _BoundContext(self, self.own_axes(axes))

    def run_bound(self, axes: dict[str, int], addresses: Mapping[str, int], stream: Stream) -> None:
        """Run at these lengths over the tensors at `addresses`, after what the stream has before."""
        with self._turn:
            if axes != self._axes:
                self._bindings.clear()
                with self.device.lock:
                    self._session = None  # two at once would hold the weights twice
                    self._session, self._axes = self._load(axes), axes
            key = tuple(addresses[name] for name in (*self.inputs, *self.outputs))
            binding = self._bindings.get(key)
            if binding is None:
                binding = self._bindings[key] = self._bind(addresses)
            self.device.record(self._before, stream)
            self.device.synchronise(self._before)
            try:
                self._session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:  # ONNX Runtime's errors share no importable class
                self.device.check()
                raise EngineError(f"{self.graph}: ONNX Runtime failed: {str(error).splitlines()[0]}") from error

    def _bind(self, addresses: Mapping[str, int]) -> Any:
        binding = self._session.io_binding()
        for bind, specs in ((binding.bind_input, self.inputs), (binding.bind_output, self.outputs)):
            for name, spec in specs.items():
                bind(
                    name,
                    device_type="cuda",
                    device_id=0,
                    element_type=_ELEMENTS[spec.dtype],
                    shape=list(spec.shape_at(self._axes)),
                    buffer_ptr=addresses[name],
                )
        return binding

    def close(self) -> None:
        self.release_buffers()
        self.device.discard(self._before)
        with self.device.lock:
            self._bindings.clear()
            self._session = None


class _BoundContext(Context):
    """A session's engine at one set of lengths."""

    activation_bytes = 0  # the session has its own

    def __init__(self, engine: OnnxRuntimeCudaEngine, axes: dict[str, int]) -> None:
        self._engine, self._axes = engine, axes

    def capturable(self, stream: Stream) -> bool:
        del stream
        return False

    def enqueue(self, addresses: Mapping[str, int], stream: Stream) -> None:
        self._engine.run_bound(self._axes, addresses, stream)
