"""What a caller says of an upload: its name, media type and length. Whatever else it says is left out."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["file_name_of", "length_of", "media_type_of"]

_MOST = 200
_LEFT_OUT = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode's categories: controls, half characters, ends of lines
_UNKNOWN = "application/octet-stream"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;(?:[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))?)*")
"""As RFC 9110, section 8.3.1, has it."""
_LENGTH = re.compile(r"[0-9]{1,18}")


def file_name_of(text: str) -> str:
    """A name without what PostgreSQL cannot keep and headers cannot have.

    Examples
    --------
    >>> file_name_of("a\\0b\\r\\n.mp4")
    'ab.mp4'
    """
    return "".join(sign for sign in text if unicodedata.category(sign) not in _LEFT_OUT)[:_MOST]


def media_type_of(text: str) -> str:
    """A media type, or that of unknown bytes for what is none.

    Examples
    --------
    >>> media_type_of("video/mp4; codecs=\\"avc1\\""), media_type_of("video/mp4\\nX: 1")
    ('video/mp4; codecs="avc1"', 'application/octet-stream')
    """
    stated = text.strip(" \t")
    return stated if len(stated) <= _MOST and _MEDIA_TYPE.fullmatch(stated) else _UNKNOWN


def length_of(text: str) -> int | None:
    """The bytes that a Content-Length says; None for what is no number."""
    return int(text) if _LENGTH.fullmatch(text) else None
