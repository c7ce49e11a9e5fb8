"""How commands print: for people, for programs, and not at all."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

import lsx
from lsx.cli import export, progress, run
from lsx.cli.console import counted, detail, mode, out, warn
from lsx.cli.main import main
from lsx.cli.progress import task
from lsx.core.footage import FootageOptions
from lsx.errors import UsageError

EARLIER = Path(__file__).parent / "earlier"
VERIFY = ("verify", "BUNDLE", "--checkpoint-dir", "CHECKPOINT")


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def _empty_checkpoint(folder: Path) -> None:
    """`checkpoint` in a folder: files that are there, and nothing in them."""
    for part in ("latentsync_unet.pt", "whisper/tiny.pt", "vae/config.json"):
        (folder / "checkpoint" / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint" / part).touch()
    (folder / "checkpoint" / "config.yaml").write_text("data: {resolution: 256}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("inspect", "/nowhere", "--json"), 1, "BundleError"),
        (("run", "--json"), 2, "UsageError"),
        (("run", "/nowhere", "v", "s", "-o", "-", "--json"), 2, "UsageError"),  # the video goes where the object goes
        (("--json", "build", "/nowhere"), 1, "BundleError"),
        (("export", "/nowhere", "-o", "b", "--precision", "fp64", "--json"), 2, "UsageError"),
    ],
)
def test_an_error_is_one_object(
    arguments: tuple[str, ...], code: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*arguments) == code
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    assert (error["type"], error["exit_code"]) == (kind, code)
    assert json.loads(shown.err) == {"error": error}


def test_the_version_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--json", "--version") == 0
    assert json.loads(capsys.readouterr().out) == {"version": lsx.__version__}


def test_quiet_goes_before_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run("-q", "inspect", str(EARLIER / "bundle"), "--json", "-v") == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp32"
    with task("run") as work:
        work.update("loading", 0, 10)
    warn("odd")
    detail("told")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(out, "quiet", False)
    mode.reset()


def test_tables_that_are_piped_end_with_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_replaced_bundles_plans_and_records_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise UsageError("stopped")

    monkeypatch.setattr(export, "_exported", stop)
    _empty_checkpoint(tmp_path)
    shutil.copytree(EARLIER / "bundle", tmp_path / "b")
    arguments = ("export", str(tmp_path / "checkpoint"), "-o")
    assert _run(*arguments, str(tmp_path / "b")) == 2
    assert "b: the bundle there is replaced, and its 0 plans and 1 verification record go" in capsys.readouterr().err
    assert _run(*arguments, str(tmp_path / "new")) == 2
    assert "replaced" not in capsys.readouterr().err


def test_doctor_as_json_and_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backends"]["onnxruntime"]["works"]
    assert "libx264" in found["encoders"]
    assert _run("doctor", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert _run("doctor") == 0
    assert "onnxruntime" in capsys.readouterr().out
    assert not mode.json
    assert not out.quiet


def test_wrong_options_are_refused_without_heavy_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").write_text("a file")
    assert _run("export", str(tmp_path), "-o", str(tmp_path / "b")) == 1
    assert "is not a bundle" in capsys.readouterr().err
    assert _run("run", "b", "v", "s", "-o", "o.mp4", "--steps", "0") == 2
    assert "steps is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("checkpoint", "random", "."), "exists already"),
        (("checkpoint", "random", "new", "--size", "big"), "--size is big"),
        (("verify", "BUNDLE", "--checkpoint-dir", "nowhere"), "--checkpoint-dir DIR"),
        (
            ("verify", "BUNDLE", "--checkpoint-dir", "CHECKPOINT", "--clip", "nope.mp4", "s.wav"),
            "nope.mp4: no such file",
        ),
        (("bench", "BUNDLE", "--clip", "nope.mp4", "s.wav"), "nope.mp4: no such file"),
        (("bench", "BUNDLE", "-o", "file"), "file: cannot be created"),
        (("calibrate", "BUNDLE", "--clips", "file", "-o", "c", "--checkpoint-dir", "nowhere"), "--checkpoint-dir DIR"),
        (("verify", "BUNDLE", "--max-chunks", "0"), "max_chunks is 0"),
        (("verify", "BUNDLE", "--truth", "file"), "--truth is of a clip"),
        ((*VERIFY, "--threshold", "foo=1"), "no threshold foo"),
        ((*VERIFY, "--auxiliary", "nope"), "nope: no weights to judge with"),
        ((*VERIFY, "--backend", "absent"), "backend is absent"),
        ((*VERIFY, "--provider", "quantum"), "provider is quantum"),
        (VERIFY, "audio_encoder.onnx is missing"),
        (("bench", "BUNDLE", "--provider", "quantum"), "provider is quantum"),
        (("checkpoint", "random", "/proc/new"), "/proc: cannot be written"),
        (("export", "checkpoint", "-o", "/proc/b"), "/proc: cannot be written"),
        (("export", "checkpoint", "-o", "b", "--parity-report", "/proc/p.json"), "/proc: cannot be written"),
        (("export", "checkpoint", "-o", "b", "--parity-report", "none/p.json"), "none: no such folder"),
        (("export", "checkpoint", "-o", "b", "--face-models", "nope"), "nope: --face-models needs"),
        (
            ("export", "checkpoint", "-o", "b", "--unet-cosine", "2"),
            "unet_cosine is 2; give a number over 0 and up to 1",
        ),
        (("export", "checkpoint", "-o", "b", "--unet-cosine", "0.9"), "--unet-cosine is for int8 and fp8"),
        (("export", "checkpoint", "-o", "b", "--keep-fp16", "x", "--precision", "fp32"), "--keep-fp16 is for int8 and"),
        (("inspect", "BUNDLE/manifest.json"), "manifest.json: not a bundle, but a file. Give the folder"),
        (("run", "BUNDLE", "VIDEO", "s.wav", "-o", "o.mp4", "--mask", "nope.png"), "mask is 'nope.png', no such file;"),
        (("run", "BUNDLE", "VIDEO", "s.wav", "-o", "o.mp4", "--mask", "file"), "mask is 'file', no picture;"),
        (("train",), "Missing command. See: lsx train --help"),
        (("prepare", "BUNDLE", "VIDEO", "-o", "/proc/a"), "/proc: cannot be written"),
        (("run", "BUNDLE", "VIDEO", "s.wav", "-o", "/proc/o.mp4"), "/proc: cannot be written"),
        (
            ("run", "BUNDLE", "VIDEO", "s.wav", "-o", "o.mp4", "--backend", "torch", "--checkpoint-dir", "nope"),
            "nope: the torch backend needs the checkpoint",
        ),
        (("fetch", "latentsync-1.5", "-o", "/proc/c"), "/proc: cannot be written"),
        (
            ("train", "unet", "YAML", "--data", ".", "--checkpoint", "nope", "-o", "t"),
            "nope: no such checkpoint folder",
        ),
        (("train", "syncnet", "SYNCNET", "--data", ".", "--checkpoint", "nope", "-o", "t"), "nope: no such file"),
    ],
)
def test_what_is_not_there_is_refused_without_pytorch(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    _empty_checkpoint(tmp_path)
    for name in ("file", "VIDEO", "s.wav"):
        (tmp_path / name).touch()
    examples = Path(__file__).parents[2] / "examples" / "training"
    names = {
        "BUNDLE": str(EARLIER / "bundle"),
        "BUNDLE/manifest.json": str(EARLIER / "bundle" / "manifest.json"),
        "CHECKPOINT": "checkpoint",
        "YAML": str(examples / "stage1.yaml"),
        "SYNCNET": str(examples / "syncnet.yaml"),
    }
    code = "import sys; from lsx.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *(names.get(argument, argument) for argument in arguments)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert done.stdout == "False\n"
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_may_close_the_pipe() -> None:
    code = "from lsx.cli.main import main\nmain()"
    command = [sys.executable, "-c", code, "inspect", str(EARLIER / "bundle"), "--json"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    os.close(write)
    assert done.stderr == ""


def test_piped_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with task("run") as work:
        work.update("loading", 0, 10)
        work.update("lip-sync", 1, 10, "1 of 10 frames")
        work.update("lip-sync", 2, 10, "2 of 10 frames")  # at once: no line of its own
        work.update("unet", 0.77, 1.0, "77 %")
    assert capsys.readouterr().err.splitlines() == ["loading 0 %", "lip-sync 10 %, 1 of 10 frames", "unet 77 %"]


def test_one_is_singular() -> None:
    assert [counted(number, "chunk") for number in (0, 1, 2)] == ["0 chunks", "1 chunk", "2 chunks"]
    chunker, timeline = SimpleNamespace(count=2, silent=1, whole=1), SimpleNamespace(frames=16)
    plan = SimpleNamespace(chunker=lambda *_: chunker, timeline=timeline)
    assert run._to_make(plan, 16, FootageOptions()) == "16 frames to make in 1 chunk"  # type: ignore[arg-type]


def test_progress_as_json_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "json", True)
    with task("run") as work:
        work.update("lip-sync", 3, 10, "3 of 10 frames")
    line = json.loads(capsys.readouterr().err)
    assert line == {"progress": "run", "what": "lip-sync", "done": 3, "total": 10, "note": "3 of 10 frames"}


NOTE = "16 of 125 frames, chunk 2 of 8, step 5 of 12, 7.91 frames/s, 0:20 left"
LABEL = "lip-sync on onnxruntime"


def _line_on_a_terminal(columns: int, note: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The last line that a task showed."""
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=columns, soft_wrap=True, _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "err", terminal)
    with task("run") as work:
        work.update(LABEL, 16, 125, note)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).strip().splitlines()
    assert all(cell_len(line) < columns for line in lines)
    return lines[-1]


@pytest.mark.parametrize(
    ("columns", "said", "has_bar", "has_elapsed"),
    [
        (34, "0:20 left", False, False),
        (60, "0:20 left", True, False),
        (80, "16 of 125 frames, chunk 2 of 8, 0:20 left", True, False),
        (100, "16 of 125 frames, chunk 2 of 8, step 5 of 12, 0:20 left", True, False),
        (120, NOTE, True, True),
    ],
)
def test_a_narrow_terminal_shows_the_time_left_and_no_half_words(
    columns: int, said: str, has_bar: bool, has_elapsed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = _line_on_a_terminal(columns, NOTE, monkeypatch)
    assert line.startswith(LABEL)
    assert said in line
    assert (line.count("\u2501") >= 9, line.endswith("0:00:00")) == (has_bar, has_elapsed)


def test_the_time_left_stays_wherever_it_stands_in_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    line = _line_on_a_terminal(80, "step 5/99, loss 0.1234, 1.23 s a step, 0:10:00 left, 1.0 GiB", monkeypatch)
    assert line.endswith("step 5/99, loss 0.1234, 0:10:00 left")


def test_a_label_that_does_not_fit_ends_in_an_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _line_on_a_terminal(20, "0:20 left", monkeypatch) == "lip-sync\u2026 0:20 left"
