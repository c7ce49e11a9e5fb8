"""The activation memory that the engines of a loop share."""

from __future__ import annotations

from collections.abc import Iterable

from lsx.engines.device import Device, Memory
from lsx.engines.device_engine import Context, DeviceEngine
from lsx.errors import EngineError

__all__ = ["ActivationBlock"]


class ActivationBlock:
    """The activation memory of engines that never run at once: one block, as large as any of their profiles needs.

    It is taken when first asked for and never moved, because captured graphs keep its address.
    """

    def __init__(self, engines: Iterable[DeviceEngine], device: Device) -> None:
        self._engines, self._device = tuple(engines), device
        self._memory: Memory | None = None

    def lend(self, context: Context) -> None:
        """Let `context` work in the block. Raises OutOfDeviceMemory."""
        if not context.activation_bytes:
            return
        if self._memory is None:
            self._memory = self._device.allocate(max(engine.activation_bytes for engine in self._engines))
        if context.activation_bytes > self._memory.size:
            raise EngineError(
                f"a graph needs {context.activation_bytes / 2**20:.0f} MiB of activation memory, and its plan said "
                f"{self._memory.size / 2**20:.0f}. Build the plans again: lsx build --force"
            )
        context.use_activation(self._memory)

    def close(self) -> None:
        """Give the block back. Every graph captured with it is closed before."""
        if self._memory is not None:
            self._device.free(self._memory)
            self._memory = None
