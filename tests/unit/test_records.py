"""What a verification record covers, as values."""

from __future__ import annotations

from typing import Any

import pytest

from lsx.bundle.manifest import VerificationRecord
from lsx.bundle.records import Coverage
from lsx.core.sampling import SamplingOptions
from lsx.core.thresholds import THRESHOLDS


def _record(**changes: Any) -> VerificationRecord:
    options = {"steps": "20", "guidance": "1.5", "cache_interval": "3", "seed": "0", "sampler": "ddim", "calls": "4"}
    fields: dict[str, Any] = {
        "backend": "onnxruntime",
        "lsx_version": "0.1.0",
        "created": "2026-01-01",
        "engine": "onnxruntime 1.31.1, CPUExecutionProvider",
        "files": {},
        "checkpoint": {},
        "inputs": {"clip.mp4": "0"},
        "options": options | changes.pop("options", {}),
        "thresholds": THRESHOLDS["fp16"].as_dict(),
        "figures": {},
    }
    return VerificationRecord(**(fields | changes))


def _coverage(**changes: Any) -> Coverage:
    return Coverage.of(_record(**changes), "fp16")


def test_what_is_a_smoke_check() -> None:
    assert _coverage().smoke_check is None
    assert "seeded inputs" in str(_coverage(inputs={}).smoke_check)
    assert "16 frames" in str(_coverage(options={"calls": "1"}).smoke_check)
    assert "25 frames" in str(_coverage(options={"calls": "2", "frames": "25"}).smoke_check)  # a second of clip
    assert _coverage(options={"calls": "2", "frames": "32"}).smoke_check is None
    low = THRESHOLDS["fp16"].as_dict() | {"mouth_ssim": 0.5}
    assert _coverage(thresholds=low).smoke_check == "mouth_ssim had been loosened"
    high = THRESHOLDS["fp16"].as_dict() | {"mouth_ssim": 0.999}
    assert _coverage(thresholds=high).smoke_check is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (SamplingOptions(), None),
        (SamplingOptions(guidance=3.0, seed=9), None),
        (SamplingOptions(guidance=1.0), "guidance off (verified: on)"),
        (SamplingOptions(steps=2), "steps 2 (verified: 20), cache interval 2 (verified: 3)"),
        (SamplingOptions(cache_interval=None), "cache interval 1 (verified: 3)"),
        (SamplingOptions(sampler="dpm++2m"), "sampler dpm++2m (verified: ddim)"),
    ],
)
def test_what_differs(options: SamplingOptions, said: str | None) -> None:
    assert _coverage().differs(options, "cpu") == said


def test_intervals_that_mean_the_same() -> None:
    off = _coverage(options={"cache_interval": "None"})
    assert off.differs(SamplingOptions(cache_interval=1), "cpu") is None
    long = _coverage(options={"cache_interval": "500"})
    assert long.differs(SamplingOptions(cache_interval=20), "cpu") is None
    assert long.differs(SamplingOptions(cache_interval=19), "cpu") is not None


def test_the_provider_counts_for_onnxruntime() -> None:
    assert "provider cuda" in str(_coverage().differs(SamplingOptions(), "cuda"))
    assert _coverage(backend="tensorrt", engine="TensorRT 11.4").differs(SamplingOptions(), "cuda") is None


def test_in_words() -> None:
    assert str(_coverage()) == (
        "onnxruntime, ddim, 20 steps, guidance on, cache interval 3, on 2.56 s of a clip (64 frames)"
    )
