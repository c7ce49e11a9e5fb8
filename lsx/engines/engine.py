"""The engine contract: named I/O tensors in, named I/O tensors out, whatever library is underneath."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import TensorSpec
from lsx.errors import EngineError

__all__ = ["NUMPY_DTYPES", "Array", "Engine", "FeedDict"]

Array = NDArray[Any]
FeedDict = Mapping[str, Array]

NUMPY_DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "uint8": np.uint8,
    "int64": np.int64,
}


class Engine(ABC):
    """A loaded graph that can be run.

    Thread-safe for `infer` unless a backend says otherwise. Close it, or use it as a context manager.
    """

    on_device: bool = False
    """Whether it computes on a GPU."""

    def __init__(self, graph: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.graph = graph
        self.inputs = {spec.name: spec for spec in inputs}
        self.outputs = {spec.name: spec for spec in outputs}

    @property
    @abstractmethod
    def description(self) -> str:
        """Backend, library version and device, for people."""

    def bytes_moved(self) -> int | None:
        """Bytes that the layers of one run read and write, as the library that built it told; None where it did not."""
        return None

    @abstractmethod
    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        """Run on arrays of the graph's own dtypes; outputs likewise, newly allocated. No checks: the hot path."""

    def infer(self, feed_dict: FeedDict) -> dict[str, Array]:
        """Run on float32 (or uint8) arrays, checked and cast to the graph's dtypes; float outputs come as float32.

        Raises EngineError for a missing, unknown or mis-shaped tensor.
        """
        outputs = self.run(self.cast(feed_dict))
        return {
            name: array.astype(np.float32, copy=False) if self.outputs[name].dtype != "uint8" else array
            for name, array in outputs.items()
        }

    def cast(self, feed_dict: FeedDict) -> dict[str, Array]:
        """`feed_dict` checked against the inputs and cast to their dtypes, C-contiguous."""
        if feed_dict.keys() != self.inputs.keys():
            raise EngineError(f"{self.graph} takes {', '.join(self.inputs)}; given {', '.join(feed_dict) or 'nothing'}")
        feed = {}
        axes: dict[str, int] = {}
        for name, spec in self.inputs.items():
            array = np.asarray(feed_dict[name])
            if not _fits(array.shape, spec.shape, axes):
                raise EngineError(f"{self.graph}: {name} is {list(array.shape)}; it takes {spec}")
            if spec.dtype == "uint8" and array.dtype != np.uint8:
                raise EngineError(f"{self.graph}: {name} is {array.dtype}; it takes {spec}")
            feed[name] = np.ascontiguousarray(array, dtype=self.numpy_dtype(spec))
        return feed

    def numpy_dtype(self, spec: TensorSpec) -> Any:
        """The NumPy dtype that carries `spec` on the host."""
        if spec.dtype not in NUMPY_DTYPES:
            raise EngineError(f"{self.graph}: {spec.name} is {spec.dtype}, which NumPy does not have")
        return NUMPY_DTYPES[spec.dtype]

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds. Later calls fail."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fits(shape: tuple[int, ...], spec: tuple[int | str, ...], axes: dict[str, int]) -> bool:
    """Whether `shape` is one of `spec`, axes of the same name being of the same length."""
    if len(shape) != len(spec):
        return False
    return all(
        n == axis if isinstance(axis, int) else n == axes.setdefault(axis, n)
        for n, axis in zip(shape, spec, strict=True)
    )
