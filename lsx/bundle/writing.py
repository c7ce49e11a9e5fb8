"""Writing a bundle at once: beside its target, and renamed when whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsx.bundle.manifest import MANIFEST
from lsx.core.atomic_files import check_replaceable, put_in_place
from lsx.errors import OutputError

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
    try:
        folder.chmod(0o755)
        yield folder
        put_in_place(folder, output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(output: Path) -> None:
    """Raise OutputError where no bundle can be written: no folder for it, or something else there."""
    check_replaceable(output, "bundle", _is_bundle)


def _is_bundle(folder: Path) -> bool:
    """Whether a bundle of any schema is there."""
    try:
        return "schema_version" in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
