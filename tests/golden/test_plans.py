"""Which plan fits: library, GPU, graph and lengths; what does not fit is refused with the command to run."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import GpuEntry
from lsx.core.tensors import Precision
from lsx.engines.gpu_info import Gpu
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans
from lsx.engines.tensorrt.libraries import LIBRARIES, PORTABLE, Rtx
from lsx.engines.tensorrt.plans import another_gpu, engine_from_plan, fitting_plan, profile_for, reason_stale
from lsx.errors import StaleEngine
from tests.tensorrt_builds import FAST

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")

Bundles = Callable[[Precision, int], Bundle]


def test_guidance_both_gives_two_profiles(own: Bundle) -> None:
    options = BuildOptions(opt_level=0, guidance="both")
    (plan,) = build_plans(own, "tensorrt-rtx", graphs=("unet_shallow",), options=options).built
    assert [profile_for(plan, {"b": b, "F": 16}, own) for b in (2, 1)] == [0, 1]
    (single,) = build_plans(own, "tensorrt-rtx", graphs=("step",), options=FAST).built
    with pytest.raises(StaleEngine, match="--guidance both"):
        profile_for(single, {"b": 1}, own)


def _gpu(major: int, minor: int, name: str = "NVIDIA RTX", multiprocessors: int = 76) -> Gpu:
    return Gpu(name, (major, minor), multiprocessors, 2**34, "13.0")


def test_a_plan_of_another_model_of_gpu_is_told(own: Bundle) -> None:
    """As TensorRT does: refused for another compute capability, warned of for another model of the same one."""
    build_plans(own, "tensorrt-rtx", targets=("sm89",), graphs=("step",), options=FAST)
    ahead = own.manifest.plans[0]
    assert ahead.gpu is None
    assert another_gpu(ahead, _gpu(8, 9)) is None
    built = ahead.model_copy(update={"gpu": GpuEntry(name="NVIDIA RTX", multiprocessors=76, memory=2**34)})
    assert another_gpu(built, _gpu(8, 9)) is None
    assert "76 SMs, 16 GiB), and this is NVIDIA L4 (58 SMs" in str(another_gpu(built, _gpu(8, 9, "NVIDIA L4", 58)))
    assert another_gpu(built, _gpu(8, 9, multiprocessors=58)) is not None
    compatible = built.model_copy(update={"options": built.options | {"hardware_compatible": "True"}})
    assert another_gpu(compatible, _gpu(8, 9, "NVIDIA L4", 58)) is None
    # That of the very GPU is taken before another's.
    own.add_plan(built.model_copy(update={"file": built.file.model_copy(update={"path": "plans/own.plan"})}))
    other = GpuEntry(name="NVIDIA L4", multiprocessors=58, memory=2**34)
    own.add_plan(ahead.model_copy(update={"gpu": other}))
    assert fitting_plan(own, "step", LIBRARIES["tensorrt-rtx"], _gpu(8, 9)).file.path == "plans/own.plan"


def test_a_plan_that_does_not_fit_is_refused(own: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    library = LIBRARIES["tensorrt-rtx"]
    with pytest.raises(
        StaleEngine, match=r"no tensorrt-rtx plan of step\. Build it: lsx build .* --backend tensorrt-rtx"
    ):
        fitting_plan(own, "step", library, _gpu(8, 9))
    build_plans(own, "tensorrt-rtx", targets=("sm89", PORTABLE), graphs=("step",), options=FAST)
    assert fitting_plan(own, "step", library, _gpu(8, 9)).target == "sm89"
    assert fitting_plan(own, "step", library, _gpu(12, 0)).target == PORTABLE
    with pytest.raises(StaleEngine, match=r"was built for sm89, and this GPU is sm100.*--target current"):
        fitting_plan(own, "step", library, _gpu(10, 0))
    with pytest.raises(StaleEngine, match=r"was built for sm89, and this GPU is sm90.*--backend tensorrt$"):
        fitting_plan(own, "step", library, _gpu(9, 0))  # RTX's library does not run there
    plan = own.manifest.plans[0]
    other = plan.model_copy(update={"onnx": ("0" * 64,)})
    assert "another graph" in str(reason_stale(own, other, library, _gpu(8, 9)))
    monkeypatch.setattr(Rtx, "version", "1.9.0")
    with pytest.raises(StaleEngine, match=r"was built by tensorrt-rtx 1\.7.*and this is 1\.9\.0"):
        fitting_plan(own, "step", library, _gpu(8, 9))


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        ("TensorRT-RTX does not support this compute capability, so the engine cannot be rebuilt", "tensorrt$"),
        ("the magic tag does not match", "tensorrt-rtx --force$"),
    ],
)
def test_what_to_do_about_a_plan_that_does_not_load(own: Bundle, told: str, advice: str) -> None:
    (plan,) = build_plans(own, "tensorrt-rtx", targets=("sm89",), graphs=("step",), options=FAST).built
    logger: Any = SimpleNamespace(last=told, lines=[])
    runtime: Any = SimpleNamespace(deserialize_cuda_engine=lambda _: None)
    with pytest.raises(StaleEngine, match=f"{told}.*lsx build .* --backend {advice}"):
        engine_from_plan(runtime, logger, own, plan)
