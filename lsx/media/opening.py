"""Opening what a user gives: real containers alone, nothing that they name; every failure of FFmpeg's on one line."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from lsx.errors import LsxError, MediaError, OutputError
from lsx.media.regular_files import check_regular

__all__ = ["decoding", "encoding_to", "open_media", "reason_of"]

_DEMUXERS = (
    *("mov", "mp4", "3gp", "3g2", "matroska", "webm"),
    *("avi", "flv", "mpegts", "mpeg", "mpegvideo", "m4v", "asf", "mxf", "nut", "gif", "ivf", "yuv4mpegpipe"),
    *("h264", "hevc", "av1", "obu", "vc1", "dv", "png_pipe", "jpeg_pipe", "apng"),
    *("wav", "w64", "aiff", "caf", "au", "mp3", "aac", "ac3", "eac3", "dts", "flac", "ogg", "amr", "ape", "wv", "tta"),
)
"""FFmpeg's names of the formats that are read: files that hold their own data. Not among them is whatever is a script
that names other files or addresses (concat, HLS, DASH, SDP, playlists) and so could make lsx open anything."""

_ACCESS = {"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": "file,pipe"}


def open_media(path: Path) -> Any:
    """Open a media file for reading: the file itself and nothing that it names. Raises MediaError with the reason."""
    check_regular(path)
    try:
        # A path from the root: no name can be taken for a protocol, as in `concat:a|b`.
        return av.open(f"file:{path.absolute()}", container_options=dict(_ACCESS))
    except Exception as error:  # what PyAV raises for a damaged header is of no one class
        raise MediaError(
            f"{path}: not a readable media file ({reason_of(error)}). Playlists and scripts that name other files are "
            "not read: give the video or sound file itself"
        ) from error


@contextmanager
def decoding(path: Path, where: Callable[[], str]) -> Iterator[None]:
    """Turn whatever FFmpeg or PyAV raise over damaged content into MediaError. where : how far it was read, in words.

    On damaged input they raise IndexError, ValueError, MemoryError and others besides FFmpeg's own errors.
    """
    try:
        yield
    except (LsxError, GeneratorExit):
        raise
    except Exception as error:
        raise MediaError(f"{path}: damaged {where()} ({reason_of(error)}). Copy or download it again") from error


@contextmanager
def encoding_to(name: object) -> Iterator[None]:
    """Turn what FFmpeg, PyAV or the system raise while a file is written into OutputError. name : of the file."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        reason = "the disk is full. Free space, or write elsewhere" if full else reason_of(error)
        raise OutputError(f"{name}: cannot be written: {reason}") from error


def reason_of(error: BaseException) -> str:
    """FFmpeg's or the system's own word for what went wrong, on one line."""
    reason = getattr(error, "strerror", None) or (error.args[0] if len(error.args) == 1 else error)
    text = str(reason).strip() or type(error).__name__
    return text.splitlines()[0]
