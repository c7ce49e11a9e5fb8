"""Calibration from generated clips, INT8 and FP8 exports of the small checkpoint, and their verification."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip
from lsx.bundle.bundle import Bundle
from lsx.calibration.calibrate import CONTACT_SHEET, CalibrationOptions, calibrate, plan_calibration
from lsx.calibration.clips import ClipOptions
from lsx.calibration.store import Calibration
from lsx.cli.main import main
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import LOW_PRECISIONS, LowPrecision, Precision
from lsx.engines.registry import EngineOptions
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans
from lsx.errors import AccuracyError, CalibrationError, NotVerified, UsageError
from lsx.export.exporter import export_bundle
from lsx.export.options import ExportOptions
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.quantization.options import QuantizeOptions
from lsx.quantization.quantize import quantize, quantize_beside
from lsx.quantization.target import INPUTS, QuantizationTarget
from lsx.runtime.lipsync import LipSync
from lsx.verify.verify import VerifyOptions, verify
from tests.planting import copy_of, edited, plant

Bundles = Callable[[Precision, int], Bundle]
QUICK = SamplingOptions(steps=4, seed=3)
LOWERED = {"unet_cosine": 0.985, "mouth_ssim": 0.9}
SHORT = ClipOptions(min_seconds=1.0, max_seconds=2.0)
TWO = CalibrationOptions(samples=2, clips=SHORT)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def blank(count: int) -> Iterator[NDArray[np.uint8]]:
    for index in range(count):
        yield np.full((240, 320, 3), 40 + index, np.uint8)


@pytest.fixture(scope="session")
def videos(shared: Path) -> Path:
    """A talking face, and everything that can be wrong with a clip; lengths for segments of 1 to 2 s."""
    folder = shared / "videos"
    with locked(shared / "videos.lock"):
        if not folder.exists():
            made = shared / "videos-making"
            made.mkdir()
            write_clip(made / "face.mp4", portrait_frames(40), sound=speech(1.6))
            write_clip(made / "silent.mp4", portrait_frames(30), sound=np.zeros(19200, np.int16))
            write_clip(made / "mute.mp4", portrait_frames(30))
            write_clip(made / "faceless.mp4", blank(30), sound=speech(1.2))
            write_clip(made / "short.mp4", portrait_frames(15), sound=speech(0.6))
            mirrored = (np.ascontiguousarray(255 - f[:, ::-1]) for f in portrait_frames(30))
            cut = [*portrait_frames(30), *mirrored]
            write_clip(made / "cut.mp4", iter(cut), sound=speech(2.4))
            (made / "broken.mp4").write_bytes((made / "face.mp4").read_bytes()[:2000])
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def calibration(shared: Path, videos: Path, bundle: Bundles) -> Calibration:
    with locked(shared / "calibration.lock"):
        if not (shared / "calibration").exists():
            calibrate(
                bundle("fp32", 64),
                [videos / "face.mp4"],
                shared / "calibration",
                TWO,
                options=QUICK,
            )
    return Calibration.open(shared / "calibration")


@pytest.fixture(scope="session")
def quantized(
    shared: Path, calibration: Calibration, checkpoint: Callable[[int], Path]
) -> Callable[[LowPrecision], Bundle]:
    def make(precision: LowPrecision) -> Bundle:
        output = shared / f"bundle-{precision}-64"
        with locked(shared / f"bundle-{precision}.lock"):
            if not output.exists():
                loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint(64)))
                options = QuantizeOptions(search_budget=24, unet_cosine=0.99)
                recipes = quantize_beside(loaded, calibration.path, precision, output, options, lambda _: None)
                export_bundle(loaded, output, ExportOptions(precision=precision), quantization=recipes)
        return Bundle.open(output)

    return make


def test_the_summary_says_what_happened_to_each(videos: Path, bundle: Bundles) -> None:
    plan = plan_calibration(bundle("fp32", 64), [videos], TWO, options=QUICK)
    found = {clip.name: clip for clip in plan.clips}
    assert found["broken.mp4"].reason is not None
    assert "silent" in str(found["silent.mp4"].reason)
    assert "no audio stream" in str(found["mute.mp4"].reason)
    assert found["faceless.mp4"].segments[0].reason == "no face at 0.00 s"
    assert found["short.mp4"].segments[0].reason == "0.6 s long, under 1 s"
    assert [s.reason for s in found["face.mp4"].segments] == [None]
    edges = [(s.start, s.stop) for s in found["cut.mp4"].segments]
    assert edges == [(0, 30), (30, 60)]
    assert found["cut.mp4"].segments[0].reason is None
    assert {capture.clip for capture in plan.captures} <= {i for i, clip in enumerate(plan.clips) if clip.kept}


def test_a_second_run_is_the_same_to_the_byte(
    calibration: Calibration, videos: Path, bundle: Bundles, tmp_path: Path
) -> None:
    """And one that was interrupted after the survey goes on from there."""

    def stop(_plan: object) -> None:
        raise KeyboardInterrupt

    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        calibrate(bundle("fp32", 64), [videos / "face.mp4"], again, TWO, options=QUICK, surveyed=stop)
    assert not again.exists()
    assert list(tmp_path.glob(".again-work/survey/*.json"))
    calibrate(bundle("fp32", 64), [videos / "face.mp4"], again, TWO, options=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]

    def digests(folder: Path) -> dict[str, str]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert digests(again) == digests(calibration.path)
    assert CONTACT_SHEET in digests(again)
    graphs = [feed.graph for feed in calibration.manifest.feeds]
    assert {graph: graphs.count(graph) for graph in set(graphs)} == {"unet": 2, "unet_shallow": 2, "vae_decoder": 1}
    (first, *_) = calibration.feeds("unet")
    assert first["sample"].shape == (1, 13, 16, 8, 8)
    (again / calibration.manifest.feeds[0].file).write_bytes(b"x")
    with pytest.raises(CalibrationError, match="not the file"):
        list(Calibration.open(again).feeds(calibration.manifest.feeds[0].graph))


@pytest.mark.parametrize("precision", LOW_PRECISIONS)
def test_a_quantized_bundle_holds(
    quantized: Callable[[LowPrecision], Bundle],
    precision: LowPrecision,
    checkpoint: Callable[[int], Path],
    videos: Path,
) -> None:
    """85 % of the FLOPs, thresholds held on another call of the clip with other noise, and the record.

    Two calls of a tiny picture are a poor calibration: the U-Net's threshold is lowered for what another CPU's rounding
    may make of it.
    """
    opened = quantized(precision)
    tables = json.loads((opened.path / "quantisation" / "layers.json").read_text())
    for target, table in tables.items():
        assert table["coverage"] >= 0.85
        assert opened.graph(target).coverage == pytest.approx(table["coverage"])
        shares = sum(layer["flops_share"] for layer in table["layers"] if layer["quantised"])
        assert shares == pytest.approx(table["coverage"])
        assert all(layer["quantised"] != (layer["reason"] is not None) for layer in table["layers"])
    names = {layer["name"]: layer for layer in tables["unet"]["layers"]}
    assert not names["conv_in"]["quantised"]
    assert not names["conv_out"]["quantised"]
    assert not names["time_embedding.linear_1"]["quantised"]
    wanted = [n for n in names if n.endswith(("to_q", "to_k", "to_v", "net.0.proj", "net.2", "conv1", "conv2"))]
    assert np.mean([names[n]["quantised"] for n in wanted]) > 0.6
    assert opened.graph("audio_encoder").precision == "fp16"
    with pytest.warns(RuntimeWarning, match="is not verified on onnxruntime"):
        LipSync.open(opened, "onnxruntime").close()
    with pytest.raises(NotVerified, match="lsx verify"):
        LipSync.open(opened, "onnxruntime", require_verified=True)
    clip = (videos / "face.mp4", videos / "face.mp4")
    options = SamplingOptions(steps=4)
    report = verify(
        opened,
        VerifyOptions(clip=clip, max_chunks=1, backend="onnxruntime", thresholds=LOWERED),
        options=options,
        engine=EngineOptions(checkpoint_dir=checkpoint(64)),
    )
    assert report.passed, report.failures
    with pytest.raises(NotVerified, match="smoke check"):  # one chunk, and thresholds that were lowered
        LipSync.open(opened.path, "onnxruntime", require_verified=True)
    assert Bundle.open(opened.path).manifest.records[-1].figures == report.figures()


def test_a_loop_without_deepcache_calibrates_the_shallow_graph_too(
    calibration: Calibration, checkpoint: Callable[[int], Path]
) -> None:
    """A student's: nothing of it was recorded. On its own step's features it gives the full U-Net's noise."""
    kept = [entry for entry in calibration.manifest.feeds if entry.graph != "unet_shallow"]
    assert len(kept) < len(calibration.manifest.feeds)
    without = Calibration(calibration.path, calibration.manifest.model_copy(update={"feeds": kept}))
    target = QuantizationTarget("unet", Checkpoint(CheckpointFiles.in_folder(checkpoint(64))), without)
    full, shallow = (list(target.feeds(graph)) for graph in ("unet", "unet_shallow"))
    assert len(full) == len(shallow) > 0
    for one, other in zip(full, shallow, strict=True):
        assert torch.equal(target.run(one), target.run(other))
    assert sorted(target.first_feeds()["unet_shallow"]) == sorted(INPUTS["unet_shallow"])


def test_a_scale_times_four_is_caught(
    quantized: Callable[[LowPrecision], Bundle], checkpoint: Callable[[int], Path], videos: Path, tmp_path: Path
) -> None:
    own = copy_of(quantized("int8"), tmp_path)
    tables = json.loads((own.path / "quantisation" / "layers.json").read_text())
    layer = "up_blocks.1.resnets.1.conv2"
    assert next(row for row in tables["unet"]["layers"] if row["name"] == layer)["quantised"]
    planted = plant(own, "unet", edited(f"unet.{layer}.weight_scale", lambda scale: scale * 4))
    clip = (videos / "face.mp4", videos / "face.mp4")
    options = SamplingOptions(steps=2, cache_interval=2)
    report = verify(
        planted,
        VerifyOptions(clip=clip, max_chunks=1, backend="onnxruntime", thresholds=LOWERED),
        options=options,
        engine=EngineOptions(checkpoint_dir=checkpoint(64)),
    )
    assert not report.passed
    assert report.failing_graph == "unet"
    assert report.layers[0].name == f"unet.{layer}"


@pytest.mark.parametrize(
    ("precision", "graph"),
    [("int8", "unet_shallow"), ("fp8", "unet_shallow"), ("int8", "vae_decoder"), ("fp8", "vae_decoder")],
)
def test_quantized_graphs_build(
    quantized: Callable[[LowPrecision], Bundle], tmp_path: Path, precision: LowPrecision, graph: str
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")
    opened = copy_of(quantized(precision), tmp_path)
    fast = BuildOptions(opt_level=0)
    targets = ("sm80",) if precision == "int8" else ("sm89",)
    report = build_plans(opened, "tensorrt-rtx", targets=targets, graphs=(graph,), options=fast)
    assert [plan.file.path for plan in report.built] == [f"plans/{graph}.{precision}.tensorrt-rtx.{targets[0]}.plan"]
    if precision == "fp8":
        for older in ("sm86", "portable"):
            with pytest.raises(UsageError, match=r"from SM 8\.9 on"):
                build_plans(opened, "tensorrt-rtx", targets=(older,), graphs=(graph,), options=fast)


def test_what_is_refused(calibration: Calibration, checkpoint: Callable[[int], Path], tmp_path: Path) -> None:
    loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint(64)))
    other = Checkpoint(CheckpointFiles.in_folder(checkpoint(256)))
    with pytest.raises(CalibrationError, match="calibrated"):
        quantize(other, calibration, "int8", tmp_path)
    strict = QuantizeOptions(search_budget=1, unet_cosine=0.9999999)
    with pytest.raises(AccuracyError, match="allow-partial"):
        quantize(loaded, calibration, "fp8", tmp_path, strict)
    with pytest.raises(UsageError, match="method is guess"):
        QuantizeOptions(method="guess")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("export", "{checkpoint}", "-o", "{out}", "--precision", "int8"), 2, "needs --calibration"),
        (("export", "{checkpoint}", "-o", "{out}", "--calibration", "{out}"), 2, "is for int8 and fp8"),
        (
            ("export", "{checkpoint}", "-o", "{out}", "--precision", "fp8", "--calibration", "{out}"),
            1,
            "no calibration",
        ),
        (("calibrate", "{bundle}", "--clips", "{out}", "-o", "{out}"), 2, "no such file"),
        (("calibrate", "{bundle}", "--clips", "{videos}"), 2, "-o is missing"),
        (("calibrate", "{bundle}", "--clips", "{videos}/short.mp4", "-o", "{out}"), 1, "no segment was kept"),
        (("verify", "{bundle}", "--threshold", "unet_cosine"), 2, "give NAME=VALUE"),
        (("verify", "{bundle}", "--threshold", "mouth=1"), 2, "no threshold mouth"),
    ],
)
def test_bad_arguments(
    bundle: Bundles,
    checkpoint: Callable[[int], Path],
    videos: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    places = {
        "checkpoint": checkpoint(64),
        "bundle": bundle("fp32", 64).path,
        "videos": videos,
        "out": tmp_path / "out",
    }
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as ended:
        main([argument.format(**places) for argument in arguments])
    assert ended.value.code == code
    assert message in " ".join(shown.getvalue().split())
    assert not list(tmp_path.iterdir())
