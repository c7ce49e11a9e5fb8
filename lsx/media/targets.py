"""The target of an output: a file that appears when it is whole, or standard output."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, Protocol

from lsx.core.atomic_files import check_folder, process_lives
from lsx.errors import OutputError, UsageError
from lsx.media.open_files import check_open

__all__ = [
    "CONTAINERS",
    "STANDARD_OUTPUT",
    "FileTarget",
    "Output",
    "StreamTarget",
    "Target",
    "as_output",
    "check_target",
    "container_of",
    "target_of",
]

STANDARD_OUTPUT = Path("-")
"""What stands for standard output in the place of a file."""

Output = Path | BinaryIO
"""A path, or an open binary file that fragmented MP4 is written into."""

# The header waits for the first fragment: an empty one could not say how much of the sound's start is lead-in.
_FRAGMENTED = "frag_keyframe+delay_moov+default_base_moof"
CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's name of the container that a file's ending asks for."""


def as_output(output: Any) -> Output:
    """What a caller gave as output: a path, or a binary file that is open for writing. Raises UsageError otherwise."""
    if isinstance(output, Path | str):
        return Path(output)
    if not hasattr(output, "write"):
        raise UsageError(f"output is of type {type(output).__name__}; give a path or a file that is open for writing")
    check_open(output, "the output file", "writing")
    file: BinaryIO = output
    return file


def container_of(path: Output) -> str:
    """FFmpeg's name of the container that `path` asks for: mp4, mov or matroska. Raises UsageError."""
    if not isinstance(path, Path) or path == STANDARD_OUTPUT:
        return "mp4"
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        raise UsageError(f"{path}: the output must end in {', '.join(CONTAINERS)}, or be - for standard output")
    return container


def check_target(path: Output, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a target that cannot be written, before any work is done. Raises UsageError or OutputError."""
    container_of(path)
    if not isinstance(path, Path):
        return
    if path == STANDARD_OUTPUT:
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal; send it to a file or a program: lsx run ... -o - | ...")
        return
    check_folder(path.parent)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"{path}: is an input of this run; give another name")


class Target(Protocol):
    """What a muxer writes into. `commit` when all is written, and `discard` always, after it or instead."""

    name: str
    """The target's name, for messages."""
    opened: Any
    """What PyAV opens: a path or a file object."""
    muxer_options: dict[str, str]
    """Options of FFmpeg's muxer."""

    def commit(self) -> None:
        """Keep what was written. Raises OSError."""

    def discard(self) -> None:
        """Free everything; what was not committed is gone where it can be."""


def target_of(path: Output) -> Target:
    """The target that `path` names or is. Raises OutputError."""
    if not isinstance(path, Path):
        return StreamTarget(path, str(getattr(path, "name", "the output file")))
    if path == STANDARD_OUTPUT:
        sys.stdout.flush()
        # A descriptor of its own: Python does not stumble over a closed pipe when it ends.
        return StreamTarget(os.fdopen(os.dup(sys.stdout.fileno()), "wb"), "standard output", owned=True)
    return FileTarget(path)


class FileTarget:
    """A file beside `path`, hidden and locked, renamed to it by `commit`. Leftovers of killed runs go first."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.muxer_options = {} if container_of(path) == "matroska" else {"movflags": "+faststart"}
        _remove_leftovers(path)
        self._path = path
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}-{token_hex(4)}{path.suffix}")
        self._lock = _locked(self._partial)
        self.opened: Any = str(self._partial)

    def commit(self) -> None:
        """Rename it to its own name. Raises OSError."""
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Remove the partial file, if it is still there, and its lock."""
        self._partial.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class StreamTarget:
    """An open file, as fragmented MP4: a fragment at every key frame, and at least one a second.

    What was written before a failure cannot be taken back.
    """

    def __init__(self, file: BinaryIO, name: str, *, owned: bool = False) -> None:
        """owned : close `file` at the end; else it stays open."""
        self.name = name
        self.muxer_options = {"movflags": _FRAGMENTED, "frag_duration": "1000000"}
        self._file, self._owned = file, owned
        self.opened: Any = _WriteOnly(file)

    def commit(self) -> None:
        """Send what is buffered. Raises OSError."""
        if hasattr(self._file, "flush"):
            self._file.flush()

    def discard(self) -> None:
        """Close this side of it; standard output itself, and a caller's file, stay open."""
        with suppress(OSError):
            if self._owned:
                self._file.close()


class _WriteOnly:
    """A file that can only be written, from the front to the end, also where it is a regular file."""

    name = "output"

    def __init__(self, file: Any) -> None:
        self.write = file.write

    @staticmethod
    def seekable() -> bool:
        return False


def _locked(partial: Path) -> int | None:
    """A new file at `partial`, locked for as long as this process lives and keeps the descriptor that is returned.

    By the lock a later run knows a leftover from a file that is being written, also across containers and where
    process numbers are used again. Raises OutputError.
    """
    try:
        import fcntl

        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on this system
        return None
    except OSError as error:
        raise OutputError(f"{partial.parent}: cannot be written: {error.strerror}") from error
    return descriptor


def _remove_leftovers(path: Path) -> None:
    """Remove what runs into `path` left that were killed: partial files that nobody holds, of processes that ended."""
    try:
        import fcntl
    except ImportError:
        return
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)(-[0-9a-f]{{8}})?{re.escape(path.suffix)}")
    for other in path.parent.iterdir():
        match = pattern.fullmatch(other.name)
        if match is None or (match[2] is None and process_lives(int(match[1]))):  # older names have no lock behind them
            continue
        with suppress(OSError):
            descriptor = os.open(other, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()
            finally:
                os.close(descriptor)
