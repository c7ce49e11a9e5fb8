"""The bench on a real GPU: times by events, stages that add up, memory of the device."""

from __future__ import annotations

import pytest

from lsx.bench.bench import bench
from lsx.bench.options import BenchOptions
from lsx.bench.peaks import device_peaks
from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.engines.cuda_device import CudaDevice
from lsx.engines.device_engine import DeviceEngine

pytestmark = pytest.mark.filterwarnings("ignore:no CUDA graph", "ignore:.*is not verified")


def test_events_and_stages(engines: tuple[Bundle, dict[str, DeviceEngine]], device: CudaDevice) -> None:
    opened = engines[0]
    backend = next(iter(engines[1].values())).description.split()[0]
    settings = BenchOptions(
        sections=("graphs", "chunk", "cold"), backends=(backend,), provider="cuda", compiled=False, repeat=5
    )
    made = bench(opened, options=SamplingOptions(steps=6), settings=settings)
    graphs = {row.what: row.seconds.median for row in made.rows if row.section == "graphs" and row.contender == backend}
    assert graphs["unet"] > graphs["unet_shallow"] > graphs["step"] > 0
    call = next(row for row in made.rows if row.section == "chunk" and row.contender == backend)
    (stages,) = made.stages
    assert 0 < stages.device_busy <= 1
    assert sum(s.seconds for s in stages.stages if s.name != "wait") <= 1.1 * call.seconds.median
    assert made.roofline is not None
    assert made.roofline.peak_bytes > 10**11
    assert made.cold[0].seconds > 0
    assert device_peaks(device).bytes == pytest.approx(made.roofline.peak_bytes, rel=0.3)
