"""lsx's command line, from a script."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["lsx"]


def lsx(*arguments: str) -> None:
    """Run the command line as a user would, and show what was typed."""
    print("$ lsx", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "lsx", *arguments], check=True)  # noqa: S603
