"""Open files that a caller gives in the place of paths."""

from __future__ import annotations

from typing import Any, Literal

from lsx.errors import UsageError

__all__ = ["check_open"]


def check_open(file: Any, name: str, use: Literal["reading", "writing"]) -> None:
    """Raise UsageError where a file is closed, gives or takes text, or is open for the other use alone.

    name : for messages. A file that does not say is taken to be right.
    """
    if getattr(file, "closed", False):
        raise UsageError(f"{name} is closed; give one that is open")
    if hasattr(file, "encoding"):
        raise UsageError(f"{name} is one of text; open it in binary mode")
    able = getattr(file, "readable" if use == "reading" else "writable", None)
    if able is not None and not able():
        raise UsageError(f"{name} is not open for {use}; open it so, in binary mode")
