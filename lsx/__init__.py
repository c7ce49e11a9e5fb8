"""lsx: LatentSync from PyTorch checkpoint to bundle to lip-synced video.

Stable names: Bundle, CancelToken, Face, LipSync, LsxError. Importing lsx loads none of its heavy libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsx.errors import LsxError

if TYPE_CHECKING:
    from lsx.bundle import Bundle
    from lsx.runtime.alignment import Face
    from lsx.runtime.cancel import CancelToken
    from lsx.runtime.lipsync import LipSync

__all__ = ["Bundle", "CancelToken", "Face", "LipSync", "LsxError", "__version__"]

__version__ = "0.1.0"

_LAZY = {
    "Bundle": "lsx.bundle",
    "CancelToken": "lsx.runtime.cancel",
    "Face": "lsx.runtime.alignment",
    "LipSync": "lsx.runtime.lipsync",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lsx' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
