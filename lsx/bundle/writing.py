"""Writing a bundle at once: beside its target, and renamed when whole."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

from lsx.bundle.manifest import MANIFEST
from lsx.core.atomic_files import check_replaceable, folder_beside

__all__ = ["check_writable", "written_beside"]


def written_beside(output: Path) -> AbstractContextManager[Path]:
    """A temporary folder that becomes `output` when the block ends well, and is gone otherwise."""
    return folder_beside(output, "bundle", _is_bundle)


def check_writable(output: Path) -> None:
    """Raise OutputError where no bundle can be written: no folder for it, or something else there."""
    check_replaceable(output, "bundle", _is_bundle)


def _is_bundle(folder: Path) -> bool:
    """Whether a bundle of any schema is there."""
    try:
        return "schema_version" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
