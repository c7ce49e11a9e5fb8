"""`lsx bench` on the small checkpoint: every section runs, counts agree with PyTorch's, and bad input is one line."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from examples.synthetic_clip import portrait_frames, speech, write_clip
from lsx.bench.bench import bench
from lsx.bench.flops import graph_cost
from lsx.bench.options import BenchOptions
from lsx.bench.report import read_report
from lsx.bench.sweep import SweepInputs, sweep
from lsx.bench.workloads import seeded_chunk
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.cli.main import main
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Precision
from lsx.engines.registry import EngineOptions
from lsx.errors import UsageError
from lsx.graphs.graph_specs import GRAPHS
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from tests.planting import copy_of, without_kept

Bundles = Callable[[Precision, int], Bundle]
QUICK = SamplingOptions(steps=2, cache_interval=2)


def ran(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_the_profile_counts_the_graphs_own_operators(bundle: Bundles, tmp_path: Path) -> None:
    """Nodes by operator are those of the file that ONNX Runtime loads, where it fuses none; the sum is a run."""
    opened = bundle("fp32", 64)
    assert (
        ran(["bench", str(opened.path), "--sections", "", "--graphs", "unet_shallow", "--profile", "-o", str(tmp_path)])
        == 0
    )
    rows = read_report(tmp_path).profile
    assert {row.graph for row in rows} == {"unet_shallow"}
    assert sum(row.share for row in rows) == pytest.approx(1, abs=0.02)
    assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
    file = opened.files("unet_shallow", "onnxruntime")[0]
    nodes = Counter(
        node.op_type for node in onnx.load(str(opened.path / file.path), load_external_data=False).graph.node
    )
    counted = {row.operator: row.count for row in rows}
    for operator in ("MultiHeadAttention", "LayerNormalization"):
        assert counted[operator] == nodes[operator] > 0
    assert "MultiHeadAttention" in (tmp_path / "report.html").read_text()
    assert ran(["bench", str(opened.path), "--profile", "--provider", "cuda"]) == 2


def test_the_command_and_a_planted_slowdown(
    bundle: Bundles, checkpoint: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, reference = str(bundle("fp32", 64).path), str(checkpoint(64))
    common = ["bench", path, "--checkpoint-dir", reference, "--sections", "graphs", "--graphs", "unet_shallow,step"]
    common += ["--repeat", "3"]
    assert ran([*common, "-o", str(tmp_path)]) == 0
    made = read_report(tmp_path)
    assert [(row.what, row.contender) for row in made.rows] == [
        (graph, contender) for graph in ("unet_shallow", "step") for contender in ("onnxruntime", "PyTorch eager")
    ]
    for row in made.rows:
        assert row.seconds.low <= row.seconds.median <= row.seconds.high
        assert (row.ratio is None) == row.contender.startswith("PyTorch")
    assert made.roofline is not None
    assert made.command.startswith(f"lsx bench {path} --checkpoint-dir")
    assert "<svg" in (tmp_path / "report.html").read_text()
    content = json.loads((tmp_path / "report.json").read_text())
    for row in content["rows"]:  # an earlier bench that was ten times as fast
        row["seconds"] |= {name: row["seconds"][name] / 10 for name in ("median", "low", "high")}
    (tmp_path / "earlier.json").write_text(json.dumps(content))
    capsys.readouterr()
    earlier = ["--compare", str(tmp_path / "earlier.json"), "--threshold", "20"]
    for command in ([*common, *earlier], ["bench", str(tmp_path), *earlier]):  # measured anew, and read
        assert ran(command) == 1
        shown = capsys.readouterr()
        assert "unet_shallow on onnxruntime" in shown.out
        assert "figures are over 20 % slower" in " ".join(shown.err.split())


def test_a_step_that_keeps_no_latents(bundle: Bundles, checkpoint: Callable[[int], Path], tmp_path: Path) -> None:
    """As lsx 0.2 exported it: timed beside PyTorch."""
    old = without_kept(copy_of(bundle("fp32", 64), tmp_path), checkpoint(64))
    settings = BenchOptions(sections=("graphs",), graphs=("step",), repeat=1)
    report = bench(old, checkpoint_dir=checkpoint(64), options=QUICK, settings=settings)
    assert [row.contender for row in report.rows] == ["onnxruntime", "PyTorch eager"]


def test_every_section(bundle: Bundles, checkpoint: Callable[[int], Path], tmp_path: Path) -> None:
    """Also what runs in processes of their own: cold start, a clip from file to file, a long run."""
    clip = tmp_path / "clip.mp4"
    write_clip(clip, portrait_frames(20), sound=speech(0.8))
    settings = BenchOptions(
        sections=("call", "cold"),
        clip=(clip, clip),
        clients=2,
        live=True,
        duration=0.1,
        repeat=1,
        price_per_hour=3.6,
        compiled=False,
    )
    opened = bundle("fp32", 64)
    made = bench(opened, checkpoint_dir=checkpoint(64), options=QUICK, settings=settings)
    assert [row.contender for row in made.rows] == ["onnxruntime", "PyTorch + DeepCache", "PyTorch eager"]
    chunk, whole = made.stages
    assert {share.name: share.count for share in chunk.stages} == {
        "vae_encoder": 1,
        "step": 3,
        "unet": 1,
        "unet_shallow": 1,
        "vae_decoder": 1,
        "wait": 1,
    }
    assert sum(share.seconds for share in chunk.stages) == pytest.approx(chunk.seconds, rel=0.01)
    assert {"decode", "detect", "align", "denoise", "composite", "mux"} <= {share.name for share in whole.stages}
    assert made.clip is not None
    assert made.clip.frames in (20, 21)  # AAC pads the sound
    assert [(row.clients, row.rounds, row.same) for row in made.clients] == [(1, 1, True), (2, 1, True)]
    assert made.live is not None
    assert made.live.utterances == 1
    assert made.live.latency_p50 == pytest.approx(made.live.computing_p50 + made.live.overhead_p50)
    assert made.live.pictures > 16
    assert made.clip.seconds_per_second == pytest.approx(made.clip.seconds / (made.clip.frames / 25))
    assert made.clip.streams == pytest.approx(1 / made.clip.seconds_per_second)
    assert made.clip.cost_per_minute == pytest.approx(0.001 * made.clip.seconds_per_second * 60)
    assert made.clip.peak_host_bytes > 10**8
    assert [step.name for step in made.cold[0].steps][-1] == "first frame"
    assert made.long_run is not None
    assert made.long_run.frames == 16
    assert any("too few to judge" in note for note in made.notes)


def test_flops_of_the_graphs_are_pytorchs(bundle: Bundles, checkpoint: Callable[[int], Path]) -> None:
    opened = bundle("fp32", 64)
    loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint(64)))
    for name in ("unet", "unet_shallow", "vae_encoder", "vae_decoder"):
        spec = GRAPHS[name]
        module = spec.build(loaded).eval()
        feed = spec.example_inputs(loaded.spec, module, 2)
        # PyTorch does not count its fused attention on a CPU.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            module(*(torch.from_numpy(array) for array in feed.values()))
        counted = graph_cost(opened, name, {"b": 2, "F": 2}).flops
        assert counted == pytest.approx(counter.get_total_flops(), rel=0.005), name


def test_a_sweep(bundle: Bundles) -> None:
    settings = (("ddim", 20, 3), ("dpm++2m", 4, None), ("ddim", 4, 3))
    opened = bundle("fp32", 64)
    inputs = SweepInputs(*seeded_chunk(opened.model), "noise")
    found = sweep([opened], "onnxruntime", 1.5, EngineOptions(), settings, inputs=inputs)  # type: ignore[arg-type]
    errors = {(p.sampler, p.steps): p.error for p in found.points}
    assert 0 < errors["ddim", 20] < errors["ddim", 4]
    assert any(p.pareto for p in found.points)
    assert "50-step" in found.recommendation or "least error" in found.recommendation


def test_precisions_beside_each_other(bundle: Bundles, checkpoint: Callable[[int], Path], tmp_path: Path) -> None:
    """The graphs of another bundle of one checkpoint take turns; a bundle of another checkpoint is refused."""
    opened = bundle("fp32", 64)

    def copy(name: str, change: Callable[[Any], None]) -> Path:
        path = shutil.copytree(opened.path, tmp_path / name)
        content = json.loads((path / MANIFEST).read_text())
        change(content)
        (path / MANIFEST).write_text(json.dumps(content))
        return path

    said_fp16 = copy("fp16", lambda content: content.update(precision="fp16"))
    foreign = copy("foreign", lambda content: content["model"]["checkpoint"].update(unet="0" * 64))
    settings = BenchOptions(sections=("graphs",), graphs=("step",), beside=(said_fp16,), repeat=1)
    made = bench(opened, checkpoint_dir=checkpoint(64), settings=settings)
    assert [row.contender for row in made.rows] == ["onnxruntime, fp32", "onnxruntime, fp16", "PyTorch eager"]
    assert made.bundle["precision"] == "fp32, fp16"
    only = BenchOptions(sections=("graphs",), graphs=("step",), beside=(said_fp16,), precisions=("fp16",), repeat=1)
    assert bench(opened, checkpoint_dir=checkpoint(64), settings=only).bundle["precision"] == "fp16"
    for path, message in ((foreign, "another checkpoint"), (opened.path, "one of each")):
        with pytest.raises(UsageError, match=message):
            bench(opened, checkpoint_dir=checkpoint(64), settings=BenchOptions(beside=(path,)))


def test_bad_input_is_one_line(bundle: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle("fp32", 64).path
    broken = shutil.copytree(path, tmp_path / "broken")
    with (broken / "onnx" / "step.onnx").open("ab") as file:
        file.write(b"x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text('{"name": "an extension"}')
    (tmp_path / "old.json").write_text("{}")
    for arguments, code, message in (
        (["bench", str(broken)], 1, "is not the file that the manifest describes"),
        (["bench", str(tmp_path / "foreign")], 1, "not a manifest"),
        (["bench", str(tmp_path / "nowhere")], 1, "no such folder"),
        (["bench", str(path), "--compare", str(tmp_path / "old.json")], 2, "not a report of this lsx bench"),
        (["bench", str(path), "--sections", "everything"], 2, "choose from graphs, chunk, cold"),
        (["bench", str(path), "--backends", "tensorrt"], 1, "tensorrt"),
        (["bench", str(path), "--precision", "int8"], 2, "has no int8"),
        (["bench", str(path), "--duration", "soon"], 2, "give a time such as"),
        (["bench", str(path), "--clip", "absent.mp4", "absent.wav"], 1, "absent.mp4"),
    ):
        assert ran(arguments) == code, arguments
        shown = " ".join(capsys.readouterr().err.split())
        assert message in shown, arguments
        assert "Traceback" not in shown
