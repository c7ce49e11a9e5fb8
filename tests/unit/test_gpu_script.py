"""`make gpu` without a GPU: its stages 1 to 3 on a fake runtime and on the simulated device, its runner, its kit."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lsx.cli.main import main
from lsx.denoising.executor_cache import CudaExecutorCache
from lsx.engines.cuda_device import RUNTIME_CALLS, CudaDevice
from lsx.engines.device import Event, Stream
from lsx.engines.device_engine import DeviceEngine
from lsx.errors import UsageError
from lsx.export.face_models.models import find_face_models
from scripts.gpu import bench as bench_stage
from scripts.gpu import device as device_stage
from scripts.gpu import kit, sanitizer, small
from scripts.gpu.checks import Checks
from scripts.gpu.device import check_device
from scripts.gpu.driver import gpus
from scripts.gpu.probe import TENSORRT_NAMES, _has, probe_cuda
from scripts.gpu.report import write_report
from scripts.gpu.small import check_loop
from scripts.gpu.stage import Settings
from scripts.gpu.stages import Outcome, Stage, run_stages
from tests.simulated_device import SimulatedDevice, SimulatedEngine
from tests.unit.test_program import MODEL, toy_engines

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings has no wheel for this system")
from tests.fake_cuda import FakeRuntime  # noqa: E402

ROOT = Path(__file__).parents[2]


def _failed(checks: Checks) -> dict[str, str]:
    return {row["check"]: row["said"] for row in checks.rows if row["state"] == "failed"}


def test_the_probe_tries_every_call() -> None:
    checks, fake = Checks(), FakeRuntime()
    probe_cuda(checks, fake)
    assert not _failed(checks)
    assert {row["check"] for row in checks.rows} >= set(RUNTIME_CALLS)
    assert not fake.blocks
    assert not fake.graphs
    assert not fake.alive


@pytest.mark.parametrize("name", ["cudaHostAlloc", "cudaGraphLaunch", "cudaMemcpy2DAsync", "cudaEventElapsedTime"])
def test_the_probe_names_the_call_that_fails(name: str) -> None:
    checks, fake = Checks(), FakeRuntime()
    fake.failing[name] = runtime.cudaError_t.cudaErrorNotSupported
    probe_cuda(checks, fake)
    failed = _failed(checks)
    assert "never succeeded: cudaErrorNotSupported" in failed[name]
    assert "a CUDA device at work" in failed
    assert "cudaMalloc" not in failed


def test_tensorrts_names_are_those_of_the_library() -> None:
    bindings = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")
    assert [name for name in TENSORRT_NAMES["tensorrt-rtx"] if not _has(bindings, name)] == []
    assert not _has(bindings, "ICudaEngine.no_such_thing")


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_stage, "WORK", (20, 2**16))


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize("seed", range(3))
def test_the_device_stage_on_the_simulated_device(seed: int) -> None:
    checks, device = Checks(), SimulatedDevice(seed, memory=2**27)
    check_device(checks, device)
    assert not _failed(checks)
    assert len(checks.rows) == 8
    assert not device.blocks


@pytest.mark.usefixtures("little_work")
def test_the_device_stage_on_cuda_calls() -> None:
    checks, fake = Checks(), FakeRuntime(2**27)
    check_device(checks, CudaDevice(fake))
    assert not _failed(checks)
    assert not fake.blocks


@pytest.mark.usefixtures("little_work")
def test_the_device_stage_finds_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wait(device: SimulatedDevice, event: Event, stream: Stream) -> None:
        del device, event, stream

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedDevice, "wait", no_wait)
        checks = Checks()
        check_device(checks, SimulatedDevice(0, memory=2**27))
        assert "a stream waits for another's event" in _failed(checks)
    with monkeypatch.context() as patched:
        patched.setattr(SimulatedDevice, "free", lambda *_: None)
        checks = Checks()
        check_device(checks, SimulatedDevice(0, memory=2**27))
        assert "a hundred blocks come back" in _failed(checks)


def _engines() -> dict[str, DeviceEngine]:
    device = SimulatedDevice()
    return {name: SimulatedEngine(engine, device) for name, engine in toy_engines().items()}


def test_the_loop_stage_on_the_simulated_device() -> None:
    checks = Checks()
    check_loop(checks, _engines(), MODEL)
    assert not _failed(checks)
    assert [row["check"] for row in checks.rows] == ["schedules A-B-A", "batch 2-1-2", "two streams at once"]


def test_the_loop_stage_finds_contexts_that_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when one context of an engine served both batches, its shapes changing under what was captured."""
    made: dict[str, Any] = {}

    def shared(executors: CudaExecutorCache, graph: str, axes: dict[str, int]) -> Any:
        if graph not in made:
            made[graph] = executors._engines[graph].context(axes)
        made[graph]._axes = axes
        executors.activation.lend(made[graph])
        return made[graph]

    engines = _engines()
    fresh = small._fresh
    kept = {id(options): fresh(engines, MODEL, options) for options in (small.A, small.B, small.ALONE)}
    monkeypatch.setattr(small, "_fresh", lambda _engines, _model, options: kept[id(options)])
    monkeypatch.setattr(CudaExecutorCache, "_context", shared)
    checks = Checks()
    check_loop(checks, engines, MODEL)
    assert "batch 2-1-2" in _failed(checks)


def _stage(number: int, minutes: float = 1) -> Stage:
    return Stage(number, f"stage{number}", f"the stage {number}", minutes)


def _commands(codes: dict[int, str]) -> Any:
    return lambda stage: [sys.executable, "-c", codes[stage.number]]


def test_stages_go_on_after_failures_and_limits(tmp_path: Path) -> None:
    wrote = f"import json, pathlib; f = pathlib.Path({str(tmp_path)!r}) / '{{}}-stage{{}}.json'; "
    checked = wrote + "f.write_text(json.dumps([{{'check': 'x', 'state': '{}', 'seconds': 1, 'said': 'why'}}]));"
    codes = {
        2: checked.format(2, 2, "ok") + "print('fine')",
        3: checked.format(3, 3, "failed") + "raise SystemExit(1)",
        4: checked.format(4, 4, "ok") + "import signal; signal.pause()",
        5: "import os; os.kill(os.getpid(), 11)",
        6: checked.format(6, 6, "skipped"),
    }
    stages = [_stage(n, minutes=0.03 if n == 4 else 1) for n in codes]
    found = list(run_stages(stages, tmp_path, command=_commands(codes)))
    assert [outcome.state for outcome in found] == ["ok", "failed", "timed out", "failed", "skipped"]
    assert found[1].reason == "x: why"
    assert found[2].reason == "not done after 0.03 min; 1 checks were"
    assert "ended by signal 11" in found[3].reason
    assert found[4].reason == "why"
    lines = [json.loads(line) for line in (tmp_path / "stages.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [2, 3, 4, 5, 6]
    assert (tmp_path / found[0].log).read_text() == "fine\n"
    page = write_report(tmp_path, found, stages).read_text()
    assert "ended by signal 11" in page
    assert json.loads((tmp_path / "gpu-report.json").read_text())["schema_version"] == 1


def test_without_a_gpu_nothing_follows_the_first(tmp_path: Path) -> None:
    codes = {1: "raise SystemExit('no GPU')", 2: "print()"}
    found: list[Outcome] = list(run_stages([_stage(1), _stage(2)], tmp_path, command=_commands(codes)))
    assert [(outcome.stage, outcome.state, outcome.reason) for outcome in found] == [(1, "failed", "no GPU")]


def test_the_last_stages_commands_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a machine without a GPU can tell: every option is known, and it is the bundle that is missing."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(bench_stage, "runnable", lambda *_: None)
    monkeypatch.setattr(bench_stage, "lsx_command", lambda *arguments: asked.append(arguments))
    bundle: Any = type("Bundle", (), {"path": tmp_path / "bundle"})()
    bench_stage._verified(bundle, "tensorrt", tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError):  # the report that was not written
        bench_stage._benched(bundle, "tensorrt", tmp_path, tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        bench_stage._together(bundle, "tensorrt", tmp_path)
    assert [arguments[0] for arguments in asked] == ["verify", "bench", "bench"]
    for arguments in asked:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == 1  # and not 2, as for an option that is not there


@pytest.mark.parametrize(
    ("said", "code", "fails"),
    [
        ("ERROR SUMMARY: 0 errors", 0, False),
        ("ERROR SUMMARY: 0 errors", 1, False),  # as on an H200: the sanitizer's own gibibyte "did not come back"
        ("ERROR SUMMARY: 2 errors", 17, True),
        ("ERROR SUMMARY: 0 errors", 139, True),
        ("Device not supported", 0, True),
    ],
)
def test_what_the_sanitizer_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int, fails: bool
) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\necho '========= {said}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = Checks()
    sanitizer.run(checks, Settings(tmp_path, "small", (128,)))
    assert len(_failed(checks)) == 2 * fails


def _has_gpu() -> bool:
    try:
        return bool(gpus())
    except RuntimeError:
        return False


@pytest.mark.skipif(_has_gpu(), reason="it is for machines without a GPU")
def test_make_gpu_without_a_gpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.gpu", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("(1) versions")
    assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(
        [sys.executable, "-m", "scripts.gpu", "-o", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no GPU on this machine" in done.stdout
    report = json.loads((tmp_path / "gpu-report.json").read_text())
    assert len(report["stages"]) == 1
    assert report["not_run"] == ["device", "small", "sanitizer", "full", "plans", "bench", "serve"]


@pytest.mark.skipif(_has_gpu(), reason="it is for machines without a GPU")
def test_the_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "some-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    archive = tmp_path / "kit.tar"
    assert kit.main(["-o", str(archive), "--wheels", str(wheels)]) == 0
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["kit.tar"]
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "there", filter="data")
    there = tmp_path / "there" / "gpu-kit"
    assert (there / "wheels" / "some-1.0-py3-none-any.whl").read_bytes() == b"a wheel"
    assert (there / "lsx" / "lsx" / "engines" / "gpu_info.py").is_file()
    assert len([*(there / "cache").rglob("*.tflite")]) == 2
    monkeypatch.setenv("LSX_CACHE", str(there / "cache"))
    assert find_face_models().detector.is_relative_to(there)
    done = subprocess.run(["bash", str(there / "run.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is for a machine with an NVIDIA GPU" in done.stderr
