"""Whether a folder is an avatar's: asked by every command that takes one, so that nothing heavy is imported for it."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["AVATAR", "is_avatar"]

AVATAR = "avatar.json"


def is_avatar(path: Path) -> bool:
    """Whether a folder with an avatar of any schema is there."""
    try:
        content = json.loads((path / AVATAR).read_text(encoding="utf-8"))
        return "schema_version" in content and "encoder" in content
    except (OSError, ValueError, TypeError):
        return False
