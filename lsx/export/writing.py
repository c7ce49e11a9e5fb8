"""Writing a bundle at once: beside its target, and renamed when whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsx.bundle import MANIFEST
from lsx.errors import BundleError, OutputError

__all__ = ["check_writable", "written_beside"]


@contextmanager
def written_beside(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends well, and is gone otherwise."""
    check_writable(output)
    output = output.absolute()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise OutputError(f"{output.parent}: cannot be written: {error.strerror}") from error
    old = folder.with_name(folder.name + "-old")
    try:
        folder.chmod(0o755)
        yield folder
        if output.exists():
            output.rename(old)
        try:
            folder.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_writable(output: Path) -> None:
    """Raise OutputError or BundleError where no bundle can be written: no folder for it, or something else there."""
    output = output.absolute()
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder. Create it first")
    if output.exists() and not _is_replaceable(output):
        raise BundleError(f"{output}: exists and is not a bundle; lsx will not replace it. Give another -o")


def _is_replaceable(output: Path) -> bool:
    """An empty folder, or a bundle of any schema."""
    if not output.is_dir():
        return False
    if not any(output.iterdir()):
        return True
    try:
        return "schema_version" in json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
