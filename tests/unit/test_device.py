"""What a device promises, seen on the simulated one: alignment, and an order that events alone give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lsx.engines.device import ALIGNMENT, Device, aligned
from tests.simulated_device import SimulatedDevice


def test_sizes_are_rounded_up() -> None:
    assert [aligned(size) for size in (0, 1, 255, 256, 257)] == [0, 256, 256, 256, 512]
    assert ALIGNMENT == 256


def test_a_device_that_leaves_out_a_call_cannot_be_made() -> None:
    class Half(Device):
        def enter(self) -> None: ...

    made: Any = Half
    with pytest.raises(TypeError, match="copy_rows"):
        made()


@pytest.mark.parametrize("seed", range(10))
def test_streams_are_ordered_by_events_alone(seed: int) -> None:
    device = SimulatedDevice(seed)
    source, middle, target = (device.allocate_pinned(aligned(4)) for _ in range(3))
    first, second, copied, done = device.stream(), device.stream(), device.event(), device.event()
    assert source.host is not None
    assert target.host is not None
    source.host[:4] = np.arange(4)
    device.copy(middle.address, source.address, 4, first)
    device.record(copied, first)
    device.wait(copied, second)
    device.copy(target.address, middle.address, 4, second)
    device.record(done, second)
    device.synchronise(done)
    assert target.host[:4].tolist() == [0, 1, 2, 3]
