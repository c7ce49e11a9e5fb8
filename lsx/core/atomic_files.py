"""Hashes, and files and folders that are written whole: the old one is there or the new one, never a part."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lsx.errors import OutputError

__all__ = [
    "check_folder",
    "check_replaceable",
    "folder_beside",
    "process_lives",
    "put_in_place",
    "sha256_of",
    "write_whole",
]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the target and rename: the old file or the new one is there, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def process_lives(number: int) -> bool:
    """Whether a process of that number lives, also another user's."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it lives, and is another user's
    return True


def check_folder(folder: Path) -> None:
    """Raise OutputError where nothing can be written into `folder`: it is not there, or a file cannot be made in it.

    It is tried: permissions say nothing to root, nor of a file system that is read-only or no real one, as /proc.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder. Create it first")
    try:
        tempfile.TemporaryFile(dir=folder, prefix=".lsx-").close()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error


def check_replaceable(output: Path, kind: str, ours: Callable[[Path], bool]) -> None:
    """Raise OutputError where no folder can be written: its parent takes none, or something else is there.

    kind : what is written, for the message; ours : whether a folder that is not empty is an older one of that kind.
    """
    output = output.absolute()
    check_folder(output.parent)
    if output.exists() and not (output.is_dir() and (ours(output) or not any(output.iterdir()))):
        raise OutputError(f"{output}: exists and is not a {kind}; lsx will not replace it. Give another -o")


@contextmanager
def folder_beside(output: Path, kind: str, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends well, and is gone otherwise.

    kind, ours : as of `check_replaceable`. Raises OutputError.
    """
    check_replaceable(output, kind, ours)
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


def put_in_place(folder: Path, output: Path) -> None:
    """Rename `folder` to `output`, in place of an older one, which comes back when that fails. Raises OSError."""
    old = output.with_name(f".{output.name}-old-{os.getpid()}")
    if output.exists():
        output.rename(old)
    try:
        folder.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
