"""One block for all contexts, as large as any needs, at an address that stays."""

from __future__ import annotations

import pytest

from lsx.denoising.activation_block import ActivationBlock
from lsx.engines.device import Memory
from lsx.errors import EngineError
from tests.simulated_device import SimulatedDevice, SimulatedEngine
from tests.unit.test_program import MODEL, ToyEngine


class _Context:
    def __init__(self, size: int) -> None:
        self.activation_bytes = size
        self.lent: Memory | None = None

    def use_activation(self, memory: Memory) -> None:
        self.lent = memory


def test_all_share_one_block_that_stays() -> None:
    device = SimulatedDevice()
    before = device.free_bytes()
    engines = [SimulatedEngine(ToyEngine(g, MODEL), device, activation=n) for g, n in (("unet", 512), ("step", 256))]
    block = ActivationBlock(engines, device)
    assert device.free_bytes() == before  # taken when first asked for
    first, second, none = _Context(1024), _Context(100), _Context(0)
    for context in (first, second, none):
        block.lend(context)  # type: ignore[arg-type]
    assert first.lent is second.lent is not None
    assert none.lent is None
    assert before - device.free_bytes() >= 1024
    with pytest.raises(EngineError, match="lsx build --force"):
        block.lend(_Context(10**6))  # type: ignore[arg-type]
    block.close()
    block.close()
    assert device.free_bytes() == before
