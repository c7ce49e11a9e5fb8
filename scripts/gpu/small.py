"""Stage 3: a small bundle on the torch backend, schedule by schedule, then the tests that need a GPU."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_runner import ChunkRunner, seeded_noise
from lsx.denoising.executor_cache import ExecutorCache, executor_cache_for
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.loading import load_engine
from scripts.gpu.checks import Checks, need_torch_on_gpu
from scripts.gpu.models import checkpoint_of, exported
from scripts.gpu.stage import Settings

__all__ = ["check_loop", "run"]

A, B = SamplingOptions(steps=4, cache_interval=3), SamplingOptions(steps=3, cache_interval=None)
ALONE = SamplingOptions(steps=4, cache_interval=3, guidance=1.0)


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 3."""
    bundle = checks.run("export", lambda: exported(settings.folder, "small", 128, "fp16"))
    if bundle is not None:
        checks.run("the loop on torch", lambda: _on_torch(checks, bundle, settings.folder))
    checks.run("tests/gpu", lambda: _tests(settings.folder))


def _on_torch(checks: Checks, bundle: Any, folder: Path) -> None:
    need_torch_on_gpu()
    reference = checkpoint_of(folder, "small", 128)
    loaded = {graph: load_engine(bundle, graph, "torch", checkpoint_dir=reference) for graph in LOOP_GRAPHS}
    try:
        on_device = {graph: engine for graph, engine in loaded.items() if isinstance(engine, DeviceEngine)}
        check_loop(checks, on_device, bundle.model)
    finally:
        for engine in loaded.values():
            engine.close()


def check_loop(checks: Checks, engines: Mapping[str, DeviceEngine], model: ModelSpec) -> None:
    """Schedules A-B-A, batches 2-1-2, two streams at once: each result is that of a fresh executor's, to the bit."""
    fresh = {name: _fresh(engines, model, options) for name, options in (("A", A), ("B", B), ("alone", ALONE))}

    def in_turn(*order: tuple[str, SamplingOptions]) -> None:
        executors = executor_cache_for(engines, model)
        try:
            for name, options in order:
                _same(_pixels(executors, model, options), fresh[name], name)
        finally:
            executors.close()

    checks.run("schedules A-B-A", lambda: in_turn(("A", A), ("B", B), ("A", A)))
    checks.run("batch 2-1-2", lambda: in_turn(("A", A), ("alone", ALONE), ("A", A)))
    checks.run("two streams at once", lambda: _two_streams(engines, model, fresh))


def _fresh(engines: Mapping[str, DeviceEngine], model: ModelSpec, options: SamplingOptions) -> Any:
    """Result of an executor of its own, not captured."""
    executors = executor_cache_for(engines, model, cuda_graph=False)
    try:
        return _pixels(executors, model, options)
    finally:
        executors.close()


def _pixels(executors: ExecutorCache, model: ModelSpec, options: SamplingOptions) -> Any:
    size = model.resolution
    faces = np.clip(named_noise("gpu.faces", (model.frames, size, size, 3), 0) * 50 + 127, 0, 255).astype(np.uint8)
    tokens = named_noise("gpu.tokens", (model.frames, model.tokens, model.audio_dim), 0)
    runner = ChunkRunner(executors.lender(options), model, seeded_noise(0), options.guidance)
    return runner.result(runner.submit(faces, tokens, 0))["pixels"]


def _two_streams(engines: Mapping[str, DeviceEngine], model: ModelSpec, fresh: Mapping[str, Any]) -> None:
    executors = executor_cache_for(engines, model)
    failures: list[BaseException] = []

    def stream(name: str, options: SamplingOptions) -> None:
        try:
            for _ in range(5):
                _same(_pixels(executors, model, options), fresh[name], name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=stream, args=pair) for pair in (("A", A), ("alone", ALONE))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    executors.close()
    if failures:
        raise failures[0]


def _same(made: Any, wanted: Any, name: str) -> None:
    if not np.array_equal(made, wanted):
        apart = float(np.abs(made.astype(np.float64) - wanted.astype(np.float64)).max())
        raise AssertionError(f"{name} differs by up to {apart:g} from what it gives alone")


def _tests(folder: Path) -> str:
    report = folder / "logs" / "3-tests-gpu.xml"
    command = [sys.executable, "-m", "pytest", "tests/gpu", "--tb=short", "-rs", f"--junitxml={report}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    print(done.stdout)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    if done.returncode != 0:
        raise RuntimeError(last)
    return last
