"""Every exported graph through a real TensorRT: TensorRT-RTX parses and builds it, no GPU needed."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST, GpuEntry
from lsx.cli.main import main
from lsx.core.atomic_files import sha256_of
from lsx.core.graph_names import FACE_GRAPHS
from lsx.core.tensors import Precision
from lsx.engines.gpu_info import Gpu
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import PLANNED, build_plans, profiles_of
from lsx.engines.tensorrt.inspection import parsed_network, plan_table
from lsx.engines.tensorrt.libraries import LIBRARIES, PORTABLE, Rtx
from lsx.engines.tensorrt.network import network_from_graph
from lsx.engines.tensorrt.plans import another_gpu, fitting_plan, profile_for, reason_stale
from lsx.errors import BackendUnavailable, BuildError, IntegrityError, OutputError, StaleEngine, UsageError

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")

Bundles = Callable[[Precision, int], Bundle]
RESOLUTIONS: dict[Precision, int] = {"fp32": 128, "fp16": 256, "bf16": 128}
FAST = BuildOptions(opt_level=0)


def _copy_of(bundle: Bundle, folder: Path) -> Bundle:
    """A bundle of the test's own."""
    return Bundle.open(shutil.copytree(bundle.path, folder / "bundle"))


@pytest.fixture
def own(bundle: Bundles, tmp_path: Path) -> Bundle:
    return _copy_of(bundle("fp16", 256), tmp_path)


@pytest.mark.parametrize("precision", list(RESOLUTIONS))
@pytest.mark.parametrize("graph", PLANNED)
def test_a_plan_is_built(bundle: Bundles, tmp_path: Path, graph: str, precision: Precision) -> None:
    opened = _copy_of(bundle(precision, RESOLUTIONS[precision]), tmp_path)
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


@pytest.mark.parametrize("graph", [*PLANNED, *FACE_GRAPHS])
def test_the_network_has_the_contracts_shapes(bundle: Bundles, graph: str) -> None:
    """With the inputs fixed nothing varies: TensorRT sees static shapes throughout."""
    trt: Any = LIBRARIES["tensorrt-rtx"].module()
    opened = bundle("fp16", 256)
    entry = opened.graph(graph)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network, _parser = network_from_graph(LIBRARIES["tensorrt-rtx"], builder, logger, opened, graph)
    lengths = {"b": 2, "F": 16, "n": 1}
    wanted = [[lengths[n] if isinstance(n, str) else n for n in t.shape] for t in (*entry.inputs, *entry.outputs)]
    for index, shape in enumerate(wanted[: len(entry.inputs)]):
        network.get_input(index).shape = trt.Dims(shape)
    given: list[Any] = [network.get_output(i).shape for i in range(network.num_outputs)]
    assert [list(shape) for shape in given] == wanted[len(entry.inputs) :]


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
    with pytest.raises(StaleEngine, match=r"was built for sm89, and this GPU is sm90.*--target current"):
        fitting_plan(own, "step", library, _gpu(9, 0))
    plan = own.manifest.plans[0]
    other = plan.model_copy(update={"onnx": ("0" * 64,)})
    assert "another graph" in str(reason_stale(own, other, library, _gpu(8, 9)))
    monkeypatch.setattr(Rtx, "version", "1.9.0")
    with pytest.raises(StaleEngine, match=r"was built by tensorrt-rtx 1\.7.*and this is 1\.9\.0"):
        fitting_plan(own, "step", library, _gpu(8, 9))


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


def test_inspect_tells_what_is_in_a_plans_network(own: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    network = parsed_network(own, "unet_shallow", LIBRARIES["tensorrt-rtx"])
    assert network.layers["CONVOLUTION"] == own.graph("unet_shallow").operators["Conv"]
    assert network.precisions["HALF"] > network.precisions["FLOAT"] > 0
    assert any("time_embedding" in reason for reason in network.kept_float32)
    assert network.activation_bytes > 2 * 16 * 32 * 32 * 32 * 2
    build_plans(own, "tensorrt-rtx", graphs=("unet_shallow",), options=FAST)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(own.path), "--plan", "unet_shallow"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "unet_shallow.fp16.tensorrt-rtx.portable.plan" in printed
    assert "CONVOLUTION" in printed
    assert "MiB moved" in printed  # the builder's own table: no GPU is needed
    assert "not known here" not in printed
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(own.path), "--plan", "unet"])
    assert ended.value.code == 1
    assert "lsx build" in capsys.readouterr().err


@pytest.mark.parametrize("precision", list(RESOLUTIONS))
@pytest.mark.parametrize("graph", ["unet", "unet_shallow", "vae_encoder", "vae_decoder"])
def test_norms_and_attention_reach_tensorrt_whole(bundle: Bundles, graph: str, precision: Precision) -> None:
    """TensorRT gets the file with GroupNormalization: one layer of its own for each norm, none of ONNX Runtime's forms.

    TensorRT 11 is told nothing of their precision: INormalizationLayer has no such property any more, and in a strongly
    typed network a norm's inputs say it.
    """
    trt: Any = LIBRARIES["tensorrt-rtx"].module()
    opened = bundle(precision, RESOLUTIONS[precision])
    entry = opened.graph(graph)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network, _parser = network_from_graph(LIBRARIES["tensorrt-rtx"], builder, logger, opened, graph)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    norms = [layer for layer in layers if "NORMALIZATION" in str(layer.type)]
    wanted = entry.operators.get("GroupNormalization", 0) + entry.operators.get("LayerNormalization", 0)
    assert len(norms) == wanted > 0
    assert all(not hasattr(trt.INormalizationLayer, name) for name in ("compute_precision", "precision"))


@pytest.mark.parametrize("graph", ["unet_shallow", "unet"])
def test_what_a_plan_does_with_norms_and_attention(own: Bundle, graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every norm and attention of the ONNX file is found in the built plan; each norm subtracts its mean first."""
    build_plans(own, "tensorrt-rtx", graphs=(graph,), options=FAST)
    opened = Bundle.open(own.path)
    (plan,) = opened.manifest.plans
    table = plan_table(opened, plan)
    assert table is not None
    names: dict[str, set[str]] = {}
    for node in onnx.load(str(opened.path / opened.graph(graph).file.path), load_external_data=False).graph.node:
        names.setdefault(node.op_type, set()).add(node.name)
    norms = names["GroupNormalization"] | names.get("LayerNormalization", set())
    assert {name for name, kind in table.kinds.items() if kind == "NORMALIZATION"} == norms
    found = table.fusions()
    assert found.norms == len(norms)
    assert found.attentions == len(names["Attention"])
    assert {name for name, kind in table.kinds.items() if kind == "ATTENTION"} == names["Attention"]
    for name in norms:
        layers = [layer for layer in table.layers if name in layer.nodes and layer.inputs]
        words = "".join(layer.name for layer in layers)
        # A kernel of TensorRT's own for whole norms, or generated code: mean, x - mean, its square's mean.
        assert re.search("[GI]nor|Mean.*Sub.*Mul.*Mean", words), (name, words)
    # Bytes by hand of the plan's first convolution: what it reads and writes, once each.
    layer = next(one for one in table.layers if one.kind == "correlation")
    sizes = {"Half": 2, "Float": 4}
    by_hand = [math.prod(t.shape) * sizes[t.dtype] for t in (*layer.inputs, *layer.constants, *layer.outputs)]
    assert layer.moved == sum(by_hand)
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(own.path), "--plan", graph, "--fusions"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert f"of {len(norms)} in one kernel with their neighbours" in printed
    assert "MiB" in printed
    assert plan.layers is not None
    (opened.path / plan.layers.path).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="layers"):
        Bundle.open(own.path).verify()


def test_the_log_of_a_failed_build(
    own: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end with --debug alone; all of it with LSX_TENSORRT_LOG; one line where neither is asked for."""
    path = own.path / "onnx" / "step.onnx"
    model = onnx.load(str(path), load_external_data=False)
    model.graph.node[0].op_type = "Det"
    onnx.save(model, str(path))
    content = json.loads((own.path / MANIFEST).read_text())
    content["graphs"]["step"]["file"] |= {"sha256": sha256_of(path), "size": path.stat().st_size}
    (own.path / MANIFEST).write_text(json.dumps(content))
    command = ["build", str(own.path), "--backend", "tensorrt-rtx", "--graphs", "step"]

    def errors(*more: str) -> list[str]:
        with pytest.raises(SystemExit) as ended:
            main([*more, *command])
        assert ended.value.code == 1
        return capsys.readouterr().err.strip().splitlines()

    quiet = [line for line in errors() if "tensorrt" in line.lower()]
    assert len(quiet) == 1
    assert quiet[0].startswith("lsx: BuildError: step: ")
    debugged = errors("--debug")
    start = debugged.index("the end of TensorRT's log:")
    assert any(line.startswith("verbose: ") for line in debugged[start:])
    monkeypatch.setenv("LSX_TENSORRT_LOG", "verbose")
    assert sum(line.startswith("tensorrt verbose: ") for line in errors()) > 10
    monkeypatch.setenv("LSX_TENSORRT_LOG", "loud")
    assert "LSX_TENSORRT_LOG is loud" in errors_of_usage(command, capsys)


def errors_of_usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    return capsys.readouterr().err
