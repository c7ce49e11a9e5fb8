"""Stage 5: U-Net and VAE of the released size in PyTorch: eager, captured, and the kernels that the time goes to."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from lsx.bench.baselines import forget_torch_memory
from lsx.bench.timing import Budget, measure
from lsx.bench.workloads import CAPTURED, EAGER, graph_axes, graph_feed, graph_works
from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.loading import load_engine
from scripts.gpu.checks import Checks, need_torch_on_gpu
from scripts.gpu.models import bundles_of
from scripts.gpu.stage import Settings

__all__ = ["run"]

GRAPHS = ("unet", "unet_shallow", "vae_encoder", "vae_decoder")
_LAST = "PyTorch captured, channels last"


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 5."""
    for name, bundle, reference in bundles_of(checks, settings):
        for graph in GRAPHS:
            checks.run(f"{graph}, {name}", _measured, bundle, graph, reference)


def _measured(bundle: Bundle, graph: str, reference: Path) -> dict[str, Any]:
    need_torch_on_gpu()
    with load_engine(bundle, graph, "torch", checkpoint_dir=reference) as engine:
        axes = graph_axes([engine], bundle.model, SamplingOptions())
        found = measure(graph_works(EAGER, engine, axes), Budget(seconds=10, least=5))
        kernels = _kernels(engine, axes)
        found |= _channels_last(engine, axes)
    forget_torch_memory()
    eager, captured, last = (1e3 * statistics.median(found[name][1:]) for name in (EAGER, CAPTURED, _LAST))
    times = {"eager_ms": eager, "captured_ms": captured, "channels_last_ms": last, "ratio": eager / captured}
    return times | {"kernels": kernels}


def _channels_last(engine: Any, axes: Any) -> dict[str, list[float]]:
    """The captured graph once more, its weights as convolutions take them: on an H200 a fifth of the VAE's time went
    into turning tensors round for these.
    """
    import torch

    engine.release_buffers()
    engine.module.to(memory_format=torch.channels_last)
    captured = graph_works(EAGER, engine, axes)[CAPTURED]
    return measure({_LAST: captured}, Budget(seconds=5, least=5))


def _kernels(engine: Any, axes: Any) -> list[dict[str, Any]]:
    """The twenty kernels that take longest, by PyTorch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    if not isinstance(engine, DeviceEngine):
        return []
    feed = graph_feed(engine, axes)
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        engine.device_seconds(feed, captured=False)
    rows = sorted(profiled.key_averages(), key=lambda row: -row.device_time_total)
    return [{"kernel": row.key[:120], "ms": row.device_time_total / 1e3, "count": row.count} for row in rows[:20]]
