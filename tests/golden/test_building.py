"""Every exported graph through a real TensorRT: TensorRT-RTX parses and builds it, no GPU needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.cli.main import main
from lsx.core.atomic_files import sha256_of
from lsx.core.tensors import Precision
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import PLANNED, build_plans, profiles_of
from lsx.engines.tensorrt.inspection import plan_table
from lsx.errors import BackendUnavailable, BuildError, IntegrityError, OutputError, UsageError
from tests.planting import copy_of
from tests.tensorrt_builds import FAST, RESOLUTIONS

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")

Bundles = Callable[[Precision, int], Bundle]


@pytest.mark.parametrize("precision", list(RESOLUTIONS))
@pytest.mark.parametrize("graph", PLANNED)
def test_a_plan_is_built(bundle: Bundles, tmp_path: Path, graph: str, precision: Precision) -> None:
    # Whisper's layers are all alike and take ten seconds each, the VAE's encoder has the decoder's in other order and
    # takes three times as long: of these two the checkpoint at 64 px does. Its VAE changes no widths, so has no
    # shortcut convolutions: those are in the decoder's plan
    few = graph in ("audio_encoder", "vae_encoder")
    opened = copy_of(bundle(precision, 64 if few else RESOLUTIONS[precision]), tmp_path)
    shares: list[float] = []
    report = build_plans(
        opened,
        "tensorrt-rtx",
        targets=("sm89",),
        graphs=(graph,),
        options=FAST,
        progress=lambda _, s: shares.append(s),
    )
    (plan,) = report.built
    assert not report.kept
    assert plan.file.path == f"plans/{graph}.{precision}.tensorrt-rtx.sm89.plan"
    path = opened.path / plan.file.path
    assert (plan.file.size, plan.file.sha256) == (path.stat().st_size, sha256_of(path))
    assert plan.peak_bytes > 2**20
    assert all(0 <= share <= 1 for share in shares)
    assert Bundle.open(opened.path).manifest.plans == (plan,)
    Bundle.open(opened.path).verify()


def test_a_second_build_does_nothing_and_says_so(own: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "build",
        str(own.path),
        "--backend",
        "tensorrt-rtx",
        "--graphs",
        "step,unet_shallow",
        "--opt-level",
        "0",
    ]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.count("plan: ") == 2
    assert "nothing to build: all 2 plans are there and fit" in printed
    with pytest.raises(SystemExit):
        main(["doctor", str(own.path)])
    assert "step.fp16.tensorrt-rtx.portable.plan" in capsys.readouterr().out
    # Another option is another plan; a damaged one is built again.
    assert build_plans(own, "tensorrt-rtx", graphs=("step",), options=BuildOptions(opt_level=1)).built
    (own.path / "plans" / "step.fp16.tensorrt-rtx.portable.plan").write_bytes(b"damaged")
    again = Bundle.open(own.path)
    with pytest.raises(IntegrityError, match=r"step\.fp16"):
        again.verify()
    assert build_plans(again, "tensorrt-rtx", graphs=("step",), options=BuildOptions(opt_level=1)).built


def test_what_a_killed_build_left_is_removed(own: Bundle) -> None:
    folder = own.path / "plans"
    folder.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    abandoned = folder / f".unet.fp16.tensorrt-rtx.sm89.plan-{ended.pid}-abc"
    alive = folder / f".unet.fp16.tensorrt-rtx.sm89.plan-{os.getpid()}-abc"
    for file in (abandoned, alive):
        file.write_bytes(b"half")
    build_plans(own, "tensorrt-rtx", graphs=("step",), options=FAST)
    assert not abandoned.exists()
    assert alive.exists()


def test_lengths_are_fixed_but_for_the_batch(own: Bundle) -> None:
    """A VAE or sound plan of varying lengths would take more activation memory, for lengths that no run has."""
    frames = own.model.vae_frames
    wanted = {
        "vae_encoder": {"F": (frames,) * 3},
        "vae_decoder": {"F": (frames,) * 3},
        "audio_encoder": {"n": (1,) * 3},
    }
    for graph, profile in wanted.items():
        assert profiles_of(own.graph(graph), own.model, BuildOptions(guidance="both")) == (profile,)
    build_plans(own, "tensorrt-rtx", graphs=("vae_decoder",), options=FAST)
    opened = Bundle.open(own.path)
    table = plan_table(opened, opened.manifest.plans[0])
    assert table is not None
    assert not table.varying
    assert any(tensor.shape[:1] == (frames,) for layer in table.layers for tensor in layer.outputs)


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ({"targets": ("sm90",)}, UsageError, "tensorrt-rtx knows portable, current, sm75.*with --backend tensorrt"),
        ({"targets": ("current",)}, BackendUnavailable, "no GPU"),
        ({"graphs": ("face_detector",)}, UsageError, "plans are made of"),
        ({"options": BuildOptions(timing_cache=Path("cache"))}, UsageError, "--timing-cache is tensorrt's"),
        ({"options": BuildOptions(hardware_compatible=True)}, UsageError, "is tensorrt's"),
    ],
)
def test_what_cannot_be_built(own: Bundle, arguments: dict[str, Any], error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line):
        build_plans(own, "tensorrt-rtx", **arguments)
    assert not own.manifest.plans


def test_a_node_that_the_parser_does_not_take_is_named(own: Bundle) -> None:
    path = own.path / own.graph("step").file.path
    model = onnx.load(str(path))
    node = onnx.helper.make_node("Det", [model.graph.input[0].name], ["nothing"], name="the_culprit")
    model.graph.node.insert(0, node)
    onnx.save(model, str(path))
    manifest = json.loads((own.path / MANIFEST).read_text())
    manifest["graphs"]["step"]["file"] |= {"sha256": sha256_of(path), "size": path.stat().st_size}
    (own.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BuildError, match=r"step: tensorrt-rtx .* does not take node the_culprit \(Det\)"):
        build_plans(Bundle.open(own.path), "tensorrt-rtx", graphs=("step",), options=FAST)
    assert not list((own.path / "plans").iterdir())


def test_a_folder_that_cannot_be_written(own: Bundle) -> None:
    (own.path / "plans").write_text("a file where the folder goes")
    with pytest.raises(OutputError, match="cannot be written"):
        build_plans(own, "tensorrt-rtx", graphs=("step",), options=FAST)
