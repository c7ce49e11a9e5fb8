"""What all commands share: consoles, progress, and turning errors into one line and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from types import FrameType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsx.errors import LsxError, MissingDependency

__all__ = ["err", "export_extra", "out", "quantize_extra", "run_command", "show_table"]

_FILE_WIDTH = 200

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and errors."""

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


def show_table(table: Table) -> None:
    """Print a table; where no terminal bounds it, as wide as it wants."""
    (out if out.is_terminal else Console(highlight=False, width=_FILE_WIDTH)).print(table)


def export_extra() -> None:
    """Raise MissingDependency unless the `export` extra is installed."""
    _require(_EXPORT_LIBRARIES, "export")


def quantize_extra() -> None:
    """Raise MissingDependency unless the `quantize` extra, and with it `export`, is installed."""
    export_extra()
    _require(_QUANTIZE_LIBRARIES, "quantize")


def _require(libraries: set[str], extra: str) -> None:
    from importlib.util import find_spec

    for library in sorted(libraries):
        if find_spec(library) is None:
            raise MissingDependency.of(library, extra)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _warned(message: Warning | str) -> None:
    """A warning as one line, like an error."""
    err.print(f"[yellow]lsx:[/yellow] {escape(' '.join(str(message).split()))}")


def run_command(command: Callable[[], object], *, debug: bool) -> int:
    """Run `command`; returns the process's exit code. Errors become one line, with a traceback only under `debug`.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    warnings.showwarning = lambda message, *_args, **_kwargs: _warned(message)
    signal.signal(signal.SIGTERM, _terminated)  # so that temporary files are removed then, too
    try:
        command()
    except LsxError as error:
        return _failed(f"{type(error).__name__}: {error}", error.exit_code, debug=debug)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was left behind", 130, debug=debug)
    except MemoryError:
        return _failed("out of memory. Close other programs, or use a smaller resolution", 1, debug=debug)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return _failed(
            f"{type(error).__name__}: {line} (unexpected; run again with --debug and report it)",
            1,
            debug=debug,
        )
    return 0


def _failed(line: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=sys.stderr)
    err.print(f"[red]lsx:[/red] {escape(line)}")
    return code
