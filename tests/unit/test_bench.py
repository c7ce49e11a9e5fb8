"""The bench's arithmetic: FLOPs against PyTorch's counter, turns, ratios, Pareto sets, growth, comparisons, pages."""

from __future__ import annotations

import json
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lsx.bench.flops import GraphCost, graph_cost_of_file
from lsx.bench.html import bench_html
from lsx.bench.options import BenchOptions
from lsx.bench.peaks import Peaks
from lsx.bench.report import (
    SCHEMA_VERSION,
    BenchReport,
    ClipTiming,
    ColdStart,
    LongRun,
    Roofline,
    RoofRow,
    Row,
    Share,
    Spread,
    Stages,
    Sweep,
    SweepPoint,
    changes,
    read_report,
)
from lsx.bench.roofline import roofline
from lsx.bench.runs import memory_growth
from lsx.bench.stages import chunk_stages
from lsx.bench.sweep import pareto, recommend
from lsx.bench.timing import Budget, measure, noise_note, rows_of
from lsx.bench.workloads import CAPTURED, EAGER, graph_axes, graph_feed, graph_works
from lsx.cli.bench import parse_duration
from lsx.cli.bench_tables import show_changes
from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.denoising.executor import vae_frames_of
from lsx.errors import BenchFailed, UsageError
from lsx.export.onnx_file import free_leading_axis, save_model, trace
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from lsx.verify.candidate import AsFloat32
from tests.simulated_device import SimulatedDevice, SimulatedEngine
from tests.unit.test_program import MODEL, toy_engines


class _Small(nn.Module):
    """A convolution, a norm that ONNX cannot infer through, attention, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(4, 8)
        self.linear = nn.Linear(8, 16)
        self.out = nn.Linear(16, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.grouped(self.conv(x))).flatten(2).transpose(1, 2)
        q = self.linear(y)
        mixed = torch.softmax(q @ q.transpose(1, 2), dim=-1) @ q
        out: torch.Tensor = self.out(mixed)
        return out


def test_flops_are_pytorchs(tmp_path: Path) -> None:
    module, x = _Small().eval(), torch.zeros(2, 3, 6, 5)
    model = trace(module, [x], ["x"], ("y",), None)
    free_leading_axis(model, "b", {"x": 0, "y": 0})
    save_model(model, tmp_path / "small.onnx")
    found = graph_cost_of_file(tmp_path / "small.onnx", {"b": 5})
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(5, 3, 6, 5))
    assert found.flops == counter.get_total_flops()
    weights = sum(p.numel() for p in module.parameters())
    assert found.bytes == pytest.approx(4 * (weights + 5 * 3 * 30 + 5 * 30 * 4), abs=200)  # shapes are small constants


def test_the_models_total_is_the_known_one() -> None:
    """8.10 TFLOP for the U-Net at 256 px, guidance batch 2, 16 frames; 0.53 where only the last layer runs."""
    with torch.device("meta"):
        unet = UNet3D(UNetConfig()).eval()
        sample, time, audio = torch.zeros(2, 13, 16, 32, 32), torch.zeros(1), torch.zeros(2, 16, 50, 384)
    with FlopCounterMode(display=False) as counter:
        _, deep = unet(sample, time, audio)
    assert counter.get_total_flops() / 1e12 == pytest.approx(8.10, rel=0.02)
    with FlopCounterMode(display=False) as counter:
        unet.forward_shallow(sample, time, audio, deep)
    assert counter.get_total_flops() / 1e12 == pytest.approx(0.53, rel=0.02)


def test_attention_as_one_operator(tmp_path: Path) -> None:
    def shaped(name: str, shape: tuple[int, ...]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=4)
    inputs = [shaped("q", (2, 7, 32)), shaped("k", (2, 50, 32)), shaped("v", (2, 50, 32))]
    graph = onnx.helper.make_graph([node], "g", inputs, [shaped("y", (2, 7, 32))])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)]), tmp_path / "a.onnx")
    assert graph_cost_of_file(tmp_path / "a.onnx", {}).flops == 2 * 2 * (2 * 7 * 50 * 32)
    assert ir.load(tmp_path / "a.onnx").graph.name == "g"


def test_contenders_take_turns_and_the_first_run_stands_apart() -> None:
    order: list[str] = []
    clock = {"a": iter([9.0, 1, 1, 1]), "b": iter([8.0, 2, 3, 4])}

    def work(name: str) -> float:
        order.append(name)
        return next(clock[name])

    found = measure({n: (lambda n=n: work(n)) for n in "ab"}, Budget(repeat=3))  # type: ignore[misc]
    assert "".join(order) == "ab" + "ababab"
    assert found == {"a": [9, 1, 1, 1], "b": [8, 2, 3, 4]}
    first, second = rows_of("graphs", "unet", found, "b")
    assert first.seconds.first == 9
    assert first.seconds.median == 1
    assert first.ratio is not None
    assert first.ratio.median == 3
    assert (first.ratio.low, first.ratio.high) == (2.5, 3.5)
    assert second.ratio is None
    assert "unet on b" in str(noise_note([first, second]))
    assert "unet on a" not in str(noise_note([first, second]))


def test_a_budget_bounds_the_rounds() -> None:
    budget = Budget(seconds=10, least=2, most=5)
    assert budget.more(1, 100, 100)
    assert not budget.more(2, 6, 5)
    assert budget.more(2, 4, 5)
    assert not budget.more(5, 0.1, 0)
    assert not Budget(repeat=1).more(1, 0, 0)


def point(seconds: float, error: float, sampler: str = "ddim", steps: int = 20, interval: int | None = 3) -> SweepPoint:
    return SweepPoint(
        precision="fp16",
        sampler=sampler,
        steps=steps,
        cache_interval=interval,
        seconds=seconds,
        error=error,
        pareto=False,
    )


def test_the_pareto_set_and_the_advice() -> None:
    released, quick, best, dominated = (
        point(4, 2.0),
        point(2, 1.5, "dpm++2m", 10),
        point(9, 0.5, "ddim", 50),
        point(5, 3.0, "ddim", 10, None),
    )
    every = [released, quick, best, dominated]
    assert pareto(every) == [quick, best]
    assert recommend(every).startswith("take fp16, dpm++2m, 10 steps, cache interval 3: 1.50 levels")
    assert "2.00x as fast" in recommend(every)
    assert recommend([released, best]).startswith("stay with")
    assert recommend([best, dominated]).startswith("take fp16, ddim, 50 steps")


def test_memory_that_grows_and_memory_that_does_not() -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, 100)
    flat = (10**8 + noise).tolist()
    assert abs(memory_growth([10**7, 5 * 10**7, *flat])) < 1e-3  # the warm-up is left out
    leaking = (10**8 + 10**5 * np.arange(100)).tolist()
    assert memory_growth(leaking) == pytest.approx(0.066, abs=0.01)
    assert memory_growth([]) == 0


def report(scale: float = 1.0) -> BenchReport:
    def row(section: str, contender: str, seconds: float) -> Row:
        spread = Spread(median=seconds, low=seconds * 0.9, high=seconds * 1.1, first=2 * seconds, repeats=3)
        ratio = Spread(median=1.5, low=1.4, high=1.6, repeats=3)
        return Row(
            section=section, what="unet <b>", contender=contender, seconds=spread, ratio=ratio, versus="PyTorch eager"
        )

    return BenchReport(
        schema_version=SCHEMA_VERSION,
        lsx_version="0",
        created="now",
        machine={"GPU": "none", "system": "x"},
        bundle={"model": "m<i>", "resolution": "64", "precision": "fp32", "manifest_sha256": "0"},
        options={"steps": "4"},
        rows=(row("graphs", "onnxruntime", 0.1 * scale), row("chunk", "PyTorch eager", 3.0)),
        roofline=Roofline(
            peak_flops=1e11,
            peak_bytes=1e10,
            how="by hand",
            rows=(
                RoofRow(
                    graph="unet",
                    contender="onnxruntime",
                    flops=1e10,
                    bytes=1e8,
                    seconds=0.2,
                    flops_share=0.5,
                    bytes_share=0.05,
                    bound="compute",
                ),
            ),
        ),
        stages=(
            Stages(
                what="chunk",
                contender="onnxruntime",
                seconds=1.0,
                overlapping=False,
                stages=(Share(name="unet", seconds=0.9, count=3), Share(name="wait", seconds=0.1, count=1)),
                device_busy=0.9,
            ),
        ),
        host=(Share(name="paste", seconds=0.01, count=1),),
        clip=ClipTiming(
            video="v",
            audio="a",
            frames=32,
            seconds=2.0,
            seconds_per_second=1.5,
            first_frame=0.5,
            chunk_p50=1,
            chunk_p95=1,
            chunk_p99=1,
            peak_host_bytes=10**9,
            peak_device_bytes=10**8,
            streams=0.6,
            cost_per_minute=0.1,
        ),
        cold=(ColdStart(contender="onnxruntime", steps=(Share(name="open", seconds=1.0, count=1),), seconds=1.0),),
        long_run=LongRun(
            seconds=9.0,
            frames=48,
            at=(1.0, 2.0, 3.0),
            host_bytes=(100, 100, 100),
            device_bytes=(5, 5, 6),
            growth=0.0,
            judged=False,
            failed=False,
        ),
        sweep=Sweep(
            reference="r", points=(point(1, 2), point(2, 1).model_copy(update={"pareto": True})), recommendation="take"
        ),
    )


def test_the_page_of_benchmarks_holds_a_reports_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text(report(1.2).model_copy(update={"command": "lsx bench b -o r"}).text())
    script = Path(__file__).parents[2] / "scripts" / "benchmarks.py"
    runpy.run_path(str(script))["main"]([str(tmp_path)])
    page = capsys.readouterr().out
    assert "    lsx bench b -o r" in page
    for said in ("120 ms", "engines ran", "1.5 s a second of video", "Cold start on onnxruntime: 1 s", "few chunks"):
        assert said in page


def test_a_slowdown_is_caught(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report().text())
    earlier = read_report(tmp_path)
    assert earlier == report()
    found = {change.name: change.change for change in changes(earlier, report(1.2))}
    assert found["graphs: unet <b> on onnxruntime"] == pytest.approx(0.2)
    assert not any("PyTorch" in name for name in found)
    show_changes(earlier, report(1.05), 0.1)
    with pytest.raises(UsageError, match=r"steps 4, now 20"):
        show_changes(earlier, report().model_copy(update={"options": {"steps": "20"}}), 0.1)
    with pytest.raises(BenchFailed, match=r"1 of 4 figures are over 10 % slower; worst: graphs: unet .* \+20.0 %"):
        show_changes(earlier, report(1.2), 0.1)
    (tmp_path / "report.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(UsageError, match="not a report"):
        read_report(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_report(tmp_path / "absent.json")


def test_one_round_has_no_quartiles_and_graphs_are_explained() -> None:
    one = Spread(median=1.0, low=1.0, high=1.0, first=2.0, repeats=1)
    rows = (Row(section="graphs", what="unet_shallow", contender="onnxruntime", seconds=one),)
    page = bench_html(report().model_copy(update={"rows": rows}))
    assert "one round" in page
    assert "unet_shallow: a shallow one, on kept features" in page
    assert page.count('<div class="wide">') >= page.count("<table") + page.count("<svg") - 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_report_of_an_earlier_schema_is_read(version: int, tmp_path: Path) -> None:
    """They called a contender a system, and the first a chunk a call."""
    content = json.loads(report().text().replace('"contender"', '"system"'))
    content["schema_version"] = version
    if version == 1:
        for row in content["rows"]:
            row["section"] = row["section"].replace("chunk", "call")
        content["clip"] = {name.replace("chunk_p", "call_p"): value for name, value in content["clip"].items()}
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert read_report(tmp_path) == report()


def test_the_page_is_whole_and_its_plots_are_well_formed() -> None:
    page = bench_html(report())
    assert "<b>" not in page.split("<h2>Graphs</h2>")[1].split("<table>")[0]
    assert "unet &lt;b&gt;" in page
    drawings = page.split("<svg")[1:]
    assert len(drawings) == 8  # two rows of bars, stages, roofline, cold start, memory twice, sweep
    for drawing in drawings:
        root = ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")  # noqa: S314  (our own)
        width, height = (float(n) for n in root.attrib["viewBox"].split()[2:])
        for shape in root.iter():
            for name, most in (("x", width), ("cx", width), ("x1", width), ("y", height), ("cy", height)):
                assert -1 <= float(shape.attrib.get(name, 0)) <= most + 1, shape.attrib

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img")
            assert not {"src", "href"} & {name for name, _ in attrs}

    Links().feed(page)


def test_stages_and_peaks_on_a_device() -> None:
    """On a device that says one second for everything: kinds times their count, and the rest is waited for."""
    device = SimulatedDevice()
    engines = {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}
    options = SamplingOptions(steps=4, cache_interval=3)
    found = chunk_stages(engines, MODEL, options, "simulated", 20.0)
    assert {s.name: s.seconds for s in found.stages} == {
        "upload": 1,
        "vae_encoder": 1,
        "step": 5,
        "unet": 2,
        "unet_shallow": 2,
        "vae_decoder": 1,
        "download": 1,
        "wait": 7,
    }
    assert found.device_busy == 11 / 20
    assert device.launches == 5 * 4  # each graph five times, and captured after the first
    feed = graph_feed(engines["unet"], graph_axes(engines.values(), MODEL, options))
    assert engines["unet"].device_seconds(feed) == 1
    assert all(np.array_equal(a, toy_engines()["unet"].run(feed)[n]) for n, a in engines["unet"].run(feed).items())
    engines["unet"].close()
    assert not device.blocks


def test_the_vae_takes_a_gpus_frames_where_any_engine_is_on_one() -> None:
    """Plans have that length alone: verify's loop, which runs over the host's memory, has to use it, too."""
    toy, model = toy_engines(), ModelSpec(version="test", resolution=256)
    assert vae_frames_of(toy.values(), model) == 1
    on_device = SimulatedEngine(toy["vae_decoder"], SimulatedDevice())
    assert vae_frames_of([toy["unet"], on_device], model) == 16
    assert vae_frames_of([toy["unet"], AsFloat32(on_device)], model) == 16


def test_the_roofline_takes_a_plans_own_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = GraphCost(flops=8e12, bytes=2e9, by_operator={})
    monkeypatch.setattr("lsx.bench.roofline.graph_cost", lambda *_: cost)
    taken = Spread(median=0.5, low=0.5, high=0.5, first=None, repeats=3)
    rows = [Row(section="graphs", what="unet", contender=name, seconds=taken) for name in ("planned", "other")]
    bundle: Any = None
    made = roofline(
        rows,
        Peaks(flops=1e15, bytes=1e12, how="given"),
        {"unet": {}},
        {"planned": bundle, "other": bundle},
        {("planned", "unet"): int(1e11)},
    )
    planned, other = made.rows
    assert (planned.bytes, planned.bytes_of, planned.bytes_share, planned.bound) == (1e11, "plan", 0.2, "memory")
    assert (other.bytes, other.bytes_of, other.bytes_share, other.bound) == (2e9, "graph", 0.004, "compute")


def test_eager_is_measured_eager_and_captured_is_named_so() -> None:
    device = SimulatedDevice()
    engine = SimulatedEngine(toy_engines()["unet"], device)
    axes = graph_axes([engine], MODEL, SamplingOptions())
    works = graph_works(EAGER, engine, axes)
    assert list(works) == [EAGER, CAPTURED]
    for _ in range(3):
        works[EAGER]()
    assert device.launches == 0
    for _ in range(3):
        works[CAPTURED]()
    assert device.launches == 2  # the first warms up
    works[EAGER]()
    assert device.launches == 2
    assert list(graph_works("tensorrt", engine, axes)) == ["tensorrt"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1.5 m", 90), ("45", 45)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_bad_options() -> None:
    with pytest.raises(UsageError, match="give a time such as"):
        parse_duration("soon")
    with pytest.raises(UsageError, match="no calls; choose from graphs, chunk, cold"):
        BenchOptions(sections=("calls",))
    with pytest.raises(UsageError, match="repeat is 0"):
        BenchOptions(repeat=0)
