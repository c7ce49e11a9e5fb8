"""The place of what lsx keeps between runs, and can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """lsx's cache: $LSX_CACHE, else lsx under $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("LSX_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsx"
