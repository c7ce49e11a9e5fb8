"""The bench's report: advice, comparison with an earlier one, earlier schemas, pages."""

from __future__ import annotations

import json
import runpy
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lsx.bench.client_row import ClientRow
from lsx.bench.html import bench_html
from lsx.bench.live_timing import LiveTiming
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
from lsx.bench.sweep import pareto, recommend
from lsx.cli.bench_tables import show_changes, show_report
from lsx.cli.console import mode, set_mode
from lsx.errors import BenchFailed, UsageError


@pytest.fixture(autouse=True)
def _printing() -> None:
    """The terminal as a command without flags finds it, whatever one before in this process was told."""
    mode.reset()
    set_mode(json=False, quiet=False, verbose=False)


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
        clients=(
            ClientRow(
                clients=2,
                rounds=3,
                seconds=4.0,
                frames_per_second=16.0,
                gain=1.25,
                gain_low=1.2,
                gain_high=1.3,
                first_frame=0.7,
                chunk_p50=1.5,
                chunk_p95=1.75,
                idle=0.125,
                same=True,
            ),
        ),
        live=LiveTiming(
            utterances=8,
            latency_p50=0.25,
            latency_p95=0.5,
            computing_p50=0.24,
            computing_p95=0.47,
            overhead_p50=0.01,
            overhead_p95=0.03,
            late=1,
            pictures=400,
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
    with pytest.raises(BenchFailed, match=r"1 of 6 figures are over 10 % slower; worst: graphs: unet .* \+20.0 %"):
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


def test_a_students_unet_beside_its_teachers(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(report().unet_lines()) == []
    (teacher,) = report().stages
    parts = tuple(Share(name=name, seconds=s, count=1) for name, s in (("unet", 0.15), ("unet_shallow", 0.05)))
    student = teacher.model_copy(update={"contender": "student of 4 steps", "stages": (*parts, teacher.stages[1])})
    both = report().model_copy(update={"stages": (teacher, student)})
    line = "the U-Net's part of a chunk: onnxruntime 900 ms, student of 4 steps 200 ms, 4.50x"
    assert list(both.unet_lines()) == [line]
    assert line.replace("'", "&#x27;") in bench_html(both)
    show_report(both)
    assert line in " ".join(capsys.readouterr().out.split())


def test_clients_on_page_and_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    page = bench_html(report())
    show_report(report())
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("1.25x (1.20 to 1.30)", "12.5 %", "16.00", "overhead p50 10.0, p95 30.0 ms; 1 of 400 pictures"):
        assert said in page
        assert said in shown


def test_options_that_are_lists_are_shown_as_words() -> None:
    options = {
        "graphs": "('step',)",
        "clip": "(PosixPath('v.mp4'), PosixPath('a b.wav'))",
        "steps": "4",
        "beside": "()",
    }
    page = bench_html(report().model_copy(update={"options": options}))
    for shown in (">step<", ">v.mp4, a b.wav<", ">4<"):
        assert shown in page
    assert "PosixPath" not in page
    assert "beside" not in page


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
    assert "<b>" not in page.split("<h2>Graphs</h2>")[1].split("<table")[0]
    assert "unet &lt;b&gt;" in page
    drawings = page.split("<svg")[1:]
    assert len(drawings) == 4  # roofline, memory twice, sweep
    assert page.count('<div class="bars"') == 4  # two contenders, stages, cold start
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
