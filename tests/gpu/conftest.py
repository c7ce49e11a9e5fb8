"""What needs a GPU. Elsewhere every test here is skipped, with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.tensors import Precision
from lsx.engines.cuda_device import CudaDevice, shared_device
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.gpu_info import driver_runtime, first_gpu
from lsx.engines.loading import load_engine
from lsx.engines.registry import backend_named
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans
from lsx.engines.tensorrt.libraries import LIBRARIES, PORTABLE
from lsx.errors import BackendUnavailable, BuildError, LsxError

BACKENDS = ("torch", "onnxruntime", "tensorrt", "tensorrt-rtx")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests where there is no GPU."""
    try:
        driver_runtime()
    except BackendUnavailable as error:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(scope="session")
def device() -> CudaDevice:
    return shared_device()


@pytest.fixture(scope="session")
def gpu_bundle(
    bundle: Callable[[Precision, int], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Bundle]:
    """A copy of the small fp16 bundle with the plans of a backend, built for this GPU."""
    made: dict[str, Bundle] = {}

    def make(backend: str) -> Bundle:
        if backend not in made:
            folder = tmp_path_factory.mktemp("gpu") / "bundle"
            shutil.copytree(bundle("fp16", 256).path, folder)
            opened = Bundle.open(folder)
            if backend in LIBRARIES:
                library = LIBRARIES[backend]
                fits = any(
                    library.fits(t, first_gpu().capability, hardware_compatible=False) for t in library.default_targets
                )
                targets = () if fits or not library.default_targets else ("current",)
                build_plans(opened, backend, targets=targets, options=BuildOptions(guidance="both"))
            made[backend] = opened
        return made[backend]

    return make


@pytest.fixture(params=BACKENDS)
def engines(
    request: pytest.FixtureRequest, gpu_bundle: Callable[[str], Bundle]
) -> Iterator[tuple[Bundle, dict[str, DeviceEngine]]]:
    """The loop's engines on each backend that runs here."""
    backend: str = request.param
    try:
        works, reason = backend_named(backend).availability()
        if not works:
            pytest.skip(reason)
        opened = gpu_bundle(backend)
        loaded = {graph: load_engine(opened, graph, backend, provider="cuda") for graph in LOOP_GRAPHS}
    except BackendUnavailable as error:
        pytest.skip(f"{backend}: {error}")
    except BuildError as error:
        if backend == "tensorrt-rtx" and not LIBRARIES[backend].fits(
            PORTABLE, first_gpu().capability, hardware_compatible=False
        ):
            pytest.skip(f"{backend} does not list this GPU, and does not build for it: {error}")
        pytest.fail(f"{backend}: {error}")
    except LsxError as error:
        pytest.fail(f"{backend}: {error}")
    on_device = {name: engine for name, engine in loaded.items() if isinstance(engine, DeviceEngine)}
    if len(on_device) < len(loaded):
        for engine in loaded.values():
            engine.close()
        pytest.skip(f"{backend} runs on the CPU here")
    yield opened, on_device
    for engine in loaded.values():
        engine.close()
