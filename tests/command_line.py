"""The command line, called by a test within its own process."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from lsx.cli.main import main

__all__ = ["lsx"]


def lsx(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), errors.getvalue()
