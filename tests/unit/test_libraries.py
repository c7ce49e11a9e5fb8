"""The two TensorRTs: targets, what runs where, and what is said of a library that is missing or old."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from lsx.engines.gpu_info import Gpu
from lsx.engines.tensorrt import libraries
from lsx.engines.tensorrt.libraries import LIBRARIES, DataCentre, has_fp8, library_named
from lsx.errors import BackendUnavailable, UsageError

RTX, DATA_CENTRE = LIBRARIES["tensorrt-rtx"], LIBRARIES["tensorrt"]


@pytest.mark.parametrize(
    ("target", "capability", "fits"),
    [
        ("portable", (8, 0), True),
        ("portable", (8, 6), True),
        ("portable", (8, 7), False),
        ("portable", (9, 0), False),
        ("portable", (12, 0), True),
        ("portable", (13, 1), True),
        ("sm89", (8, 9), True),
        ("sm89", (8, 6), False),
        ("current-sm100", (10, 0), True),
        ("current-sm100", (8, 9), False),
        ("current-sm90", (9, 0), False),
    ],
)
def test_where_a_plan_of_rtx_runs(target: str, capability: tuple[int, int], fits: bool) -> None:
    assert RTX.fits(target, capability, hardware_compatible=False) is fits


def test_where_a_plan_of_tensorrt_runs() -> None:
    assert DATA_CENTRE.fits("sm80", (8, 0), hardware_compatible=False)
    assert not DATA_CENTRE.fits("sm80", (9, 0), hardware_compatible=False)
    assert DATA_CENTRE.fits("sm80", (9, 0), hardware_compatible=True)
    assert not DATA_CENTRE.fits("sm80", (7, 5), hardware_compatible=True)


def test_tensorrt_builds_for_the_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "first_gpu", lambda: Gpu("H100", (9, 0), 132, 2**36, "13.0"))
    assert DATA_CENTRE.targets(()) == ("sm90",)
    assert DATA_CENTRE.bound("sm90")
    with pytest.raises(UsageError, match="tensorrt builds for the GPU at hand, sm90"):
        DATA_CENTRE.targets(("sm89",))


def test_rtx_is_not_built_for_a_gpu_that_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an H200, where every plan was built, and none of them loaded."""
    monkeypatch.setattr(libraries, "first_gpu", lambda: Gpu("NVIDIA H200", (9, 0), 132, 2**37, "13.0"))
    with pytest.raises(BackendUnavailable, match=r"does not run on NVIDIA H200 .*9\.0.*--backend tensorrt$"):
        RTX.targets(("current",))
    assert RTX.targets(("sm89",)) == ("sm89",)
    monkeypatch.setattr(libraries, "first_gpu", lambda: Gpu("B200", (10, 0), 148, 2**37, "13.0"))
    assert RTX.targets(("current",)) == ("current-sm100",)


@pytest.mark.parametrize(
    ("target", "fp8"), [("sm89", True), ("current-sm90", True), ("sm120", True), ("sm86", False), ("portable", False)]
)
def test_who_computes_in_fp8(target: str, fp8: bool) -> None:
    assert has_fp8(target) is fp8


def test_an_unknown_backend_names_the_choices() -> None:
    with pytest.raises(UsageError, match="backend is onnx; plans are built for tensorrt or tensorrt-rtx"):
        library_named("onnx")


def installed(monkeypatch: pytest.MonkeyPatch, version: str) -> DataCentre:
    """TensorRT of a version, in place of what is there."""

    class Stand(DataCentre):
        backend = f"tensorrt of {version}"
        modules = ("stand_in_for_tensorrt",)

    module = ModuleType("stand_in_for_tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stand_in_for_tensorrt", module)
    return Stand()


def test_a_library_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match=r"10\.9\.0 is older than 10\.14.*pip install -U 'lsx\[tensorrt\]'"):
        installed(monkeypatch, "10.9.0").module()
    assert installed(monkeypatch, "10.14.1").version == "10.14.1"
    assert installed(monkeypatch, "11.0").network_flags() == 0


def test_a_library_that_is_not_there() -> None:
    class Absent(DataCentre):
        backend = "absent"
        modules = ("no_such_library_at_all",)

    with pytest.raises(BackendUnavailable, match=r"absent is not installed. Install it: pip install 'lsx\[tensorrt\]'"):
        Absent().module()
