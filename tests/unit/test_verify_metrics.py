"""The figures of a verification against scikit-image and by hand; the page that shows them."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lsx.core.noise import named_noise
from lsx.core.thresholds import THRESHOLDS
from lsx.errors import UsageError
from lsx.metrics.arrays import compare, worst
from lsx.metrics.images import psnr, ssim_map, temporal_difference
from lsx.verify.html import report_html
from lsx.verify.report import ClipQuality, GraphFigures, Report, WorstFrame


def pictures() -> tuple[np.ndarray, np.ndarray]:
    first = np.clip(named_noise("p", (8, 8, 3), 0).repeat(8, 0).repeat(8, 1) * 50.0 + 127, 0, 255).astype(np.float64)
    return first, np.clip(first + named_noise("n", (64, 64, 3), 0) * 9, 0, 255)


def test_ssim_and_psnr_are_scikit_images() -> None:
    first, second = pictures()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, wanted = structural_similarity(first, second, channel_axis=2, full=True, **options)
    inside = slice(6, -6)  # at the border the two mirror differently
    np.testing.assert_allclose(ssim_map(second, first)[inside, inside], wanted.mean(2)[inside, inside], atol=1e-6)
    everywhere = np.ones((64, 64), bool)
    assert psnr(second, first, everywhere) == pytest.approx(peak_signal_noise_ratio(first, second, data_range=255))
    assert psnr(first, first, everywhere) == math.inf


def test_compare_by_hand() -> None:
    found = compare(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    assert found.max_error == 0.5
    assert found.mean_error == 0.25
    assert found.snr == pytest.approx(10 * math.log10(25 / 0.25))
    assert math.isnan(compare(np.array([math.nan, 1.0]), np.array([0.0, 1.0])).cosine)
    assert math.isnan(worst([found, compare(np.array([math.nan]), np.array([1.0]))]).cosine)


def test_temporal_difference_sees_flicker_alone() -> None:
    still = np.full((4, 8, 8, 3), 100.0)
    everywhere = np.ones((8, 8), bool)
    assert temporal_difference(still + 7, still, everywhere) == 0
    flicker = still + np.array([0, 2, 0, 2])[:, None, None, None]
    assert temporal_difference(flicker, still, everywhere) == 2


def report(cosine: float) -> Report:
    made = Report(
        bundle="<b>",
        model="m",
        precision="int8",
        backend="onnxruntime",
        engine="e",
        source="s",
        options={"steps": 4},
        thresholds=THRESHOLDS["int8"],
    )
    figures = compare(np.array([1.0, 0.0]), np.array([cosine, math.sqrt(1 - cosine**2)]))
    made.graphs = [GraphFigures(graph="unet", output="noise_pred", forwards=1, figures=figures)]
    made.drift = [figures, figures]
    made.clip = ClipQuality(
        frames=1, mouth_psnr=math.inf, mouth_ssim=0.99, face_psnr=40.0, face_ssim=0.99, temporal=0.0
    )
    picture = np.zeros((4, 4, 3), np.uint8)
    made.frames = [WorstFrame(frame=0, ssim=0.99, expected=picture, result=picture)]
    made.judge()
    return made


def test_the_verdict() -> None:
    assert report(0.9999).passed
    failed = report(0.99)
    assert [line.split()[0] for line in failed.failures] == ["unet_cosine", "latents_cosine"][: len(failed.failures)]
    assert not report(math.nan).passed
    assert json.loads(json.dumps(failed.as_json(), allow_nan=False))["clip"]["mouth_psnr"] is None
    with pytest.raises(UsageError, match="no threshold mouth"):
        THRESHOLDS["fp16"].override({"mouth": 0.5})
    assert THRESHOLDS["fp16"].override({"mouth_ssim": 0.5}).mouth_ssim == 0.5


def test_the_page_needs_no_other_file() -> None:
    page = report_html(report(0.9))
    assert "no difference: black" in page

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            for name, value in attrs:
                if name in ("src", "href"):
                    assert tag == "img"
                    assert value is not None
                    assert value.startswith("data:image/png;base64,")

    Links().feed(page)
    assert "&lt;b&gt;" in page
    assert "<svg" in page
    assert "prefers-color-scheme: dark" in page
