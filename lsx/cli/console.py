"""What all commands share: where they print, what they print in, and how errors end."""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsx.errors import LsxError, MissingDependency

__all__ = [
    "JsonFlag",
    "QuietFlag",
    "VerboseFlag",
    "command",
    "counted",
    "detail",
    "emit",
    "err",
    "export_extra",
    "fail",
    "mode",
    "out",
    "quantize_extra",
    "run_command",
    "set_mode",
    "show_table",
    "train_extra",
    "warn",
]

_FILE_WIDTH = 200

out = Console(highlight=False, soft_wrap=True)
"""Results, for people."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Warnings and errors."""


@dataclass
class _Mode:
    """How this process prints."""

    object: bool = False
    """Whether the result, or the error, is printed as one JSON object in the end: --json."""
    json: bool = False
    """Whether what is told on the way is JSON lines: --json without --quiet."""
    quiet: bool = False
    verbose: bool = False
    result: dict[str, Any] = field(default_factory=dict)
    """What `--json` prints in the end."""

    def reset(self) -> None:
        """Forget a call before this one."""
        self.object = self.json = self.quiet = self.verbose = False
        self.result.clear()


mode = _Mode()

_EXPORT_LIBRARIES = {
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "safetensors",
    "yaml",
    "tflite",
}


_QUANTIZE_LIBRARIES = {"modelopt", "scenedetect", "matplotlib"}
_TRAIN_LIBRARIES = {"accelerate", "peft", "pyarrow", "scenedetect", "tensorboard"}

JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output, and progress as JSON lines on the other."),
]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
VerboseFlag = Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what is done.")]


def set_mode(*, json: bool, quiet: bool, verbose: bool) -> None:
    """Print as these flags say, from now on; what was set before stays."""
    mode.object, mode.quiet, mode.verbose = mode.object or json, mode.quiet or quiet, mode.verbose or verbose
    mode.json = mode.object and not mode.quiet
    out.quiet = mode.object or mode.quiet


def command(function: Callable[..., object]) -> Callable[..., object]:
    """`function` as a command with the flags that all have: --json, --quiet, --verbose."""
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)  # options : whatever `function` has; Typer reads their types from the signature below
    def with_flags(*, json: bool, quiet: bool, verbose: bool, **options: Any) -> object:
        set_mode(json=json, quiet=quiet, verbose=verbose)
        return function(**options)

    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("json", JsonFlag), ("quiet", QuietFlag), ("verbose", VerboseFlag))
    ]
    changed: Any = with_flags
    changed.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *flags])
    changed.__annotations__ = {p.name: p.annotation for p in changed.__signature__.parameters.values()}
    return with_flags


def emit(**result: Any) -> None:
    """Add to what `--json` prints: one object when the command ends, well or not."""
    mode.result.update(result)


def counted(number: int, noun: str) -> str:
    """`1 chunk`, `2 chunks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def detail(text: str) -> None:
    """A line that is printed under --verbose alone."""
    if mode.verbose and not (mode.json or mode.quiet):
        err.print(escape(text))


def show_table(table: Table) -> None:
    """Print a table; where no terminal bounds it, as wide as it wants, and no line longer than its words."""
    if out.quiet:
        return
    if out.is_terminal:
        out.print(table)
        return
    wide = Console(highlight=False, width=_FILE_WIDTH)
    with wide.capture() as capture:
        wide.print(table)
    lines = (line.rstrip() for line in capture.get().splitlines())
    out.print("\n".join(lines), markup=False, emoji=False)


def export_extra() -> None:
    """Raise MissingDependency unless the `export` extra is installed."""
    _require(_EXPORT_LIBRARIES, "export")


def quantize_extra() -> None:
    """Raise MissingDependency unless the `quantize` extra, and with it `export`, is installed."""
    export_extra()
    _require(_QUANTIZE_LIBRARIES, "quantize")


def train_extra() -> None:
    """Raise MissingDependency unless the `train` extra, and with it `export`, is installed."""
    export_extra()
    _require(_TRAIN_LIBRARIES, "train")


def _require(libraries: set[str], extra: str) -> None:
    from importlib.util import find_spec

    for library in sorted(libraries):
        if find_spec(library) is None:
            raise MissingDependency.of(library, extra)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def warn(message: Warning | str) -> None:
    """Print a warning as one line, like an error."""
    text = " ".join(str(message).split())
    if mode.json:
        print(json.dumps({"warning": text}), file=sys.stderr, flush=True)
    elif not mode.quiet:
        err.print(f"[yellow]lsx: warning:[/yellow] {escape(text)}")


def run_command(work: Callable[[], object], *, debug: bool) -> int:
    """Run `work`; returns the process's exit code. Errors become one line, with a traceback only under `debug`.

    Under `--json` the result, or the error, is printed on standard output as one object.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    warnings.showwarning = lambda message, *_args, **_kwargs: warn(message)
    signal.signal(signal.SIGTERM, _terminated)  # so that temporary files are removed then, too
    code, kind, line = 0, "", ""
    raised: BaseException | None = None
    try:
        work()
    except LsxError as error:
        raised = error
        code, kind, line = error.exit_code, type(error).__name__, str(error)
    except KeyboardInterrupt as error:
        raised = error
        code, line = 130, "interrupted; nothing was left behind"
    except MemoryError as error:
        raised = error
        code, line = 1, "out of memory. Close other programs, or use a smaller resolution"
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raised = error
        code, kind = 1, type(error).__name__
        line = f"{first} (unexpected; run again with --debug and report it)"
    if code:
        if debug and raised is not None:
            traceback.print_exception(raised, file=sys.stderr)
        fail(code, kind, line)
    elif mode.object:
        _print_json(mode.result)
    return code


def _print_json(result: dict[str, Any]) -> None:
    """Print an object. A reader that has seen enough and closed the pipe, as `head` does, ends it without a word."""
    try:
        print(json.dumps(result), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there at the end


def fail(code: int, kind: str, line: str) -> None:
    """Print an error: one line; under --json a JSON line, and an object with what there is of a result."""
    if mode.object:
        error = {"type": kind or "Interrupted", "message": line, "exit_code": code}
        _print_json(mode.result | {"error": error})
        print(json.dumps({"error": error}), file=sys.stderr, flush=True)
    else:
        err.print(f"[red]lsx:[/red] {escape(f'{kind}: {line}' if kind else line)}")
