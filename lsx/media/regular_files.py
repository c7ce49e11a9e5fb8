"""What is no file at all, told before any library of media is loaded."""

from __future__ import annotations

from pathlib import Path

from lsx.errors import MediaError

__all__ = ["check_regular"]


def check_regular(path: Path) -> None:
    """Raise MediaError unless a regular file is there."""
    if not path.exists():
        raise MediaError(f"{path}: no such file")
    if path.is_dir():
        raise MediaError(f"{path}: is a folder; give a file")
    if not path.is_file():
        raise MediaError(f"{path}: is not a regular file. Copy its content into one first")
