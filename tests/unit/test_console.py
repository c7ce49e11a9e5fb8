"""How commands print: for people, for programs, and not at all."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from lsx.cli import progress
from lsx.cli.console import mode, out
from lsx.cli.main import main
from lsx.cli.progress import task

EARLIER = Path(__file__).parent / "earlier"


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("inspect", "/nowhere", "--json"), 1, "BundleError"),
        (("run", "--json"), 2, "UsageError"),
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
    assert shown.err.startswith(f"lsx: {kind}: ")


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
    ],
)
def test_what_is_not_there_is_refused_without_pytorch(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    for part in ("latentsync_unet.pt", "whisper/tiny.pt", "vae/config.json"):
        (tmp_path / "checkpoint" / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkpoint" / part).touch()
    (tmp_path / "file").touch()
    names = {"BUNDLE": str(EARLIER / "bundle"), "CHECKPOINT": "checkpoint"}
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
    assert capsys.readouterr().err.splitlines() == ["loading 0 %", "lip-sync 10 %, 1 of 10 frames"]


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
