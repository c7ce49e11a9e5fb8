"""lsx: LatentSync from PyTorch checkpoint to bundle to lip-synced video.

What is listed here is public and stays. Importing lsx loads none of its heavy libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsx import errors
from lsx.errors import *  # noqa: F403  (every error, by errors.__all__)

if TYPE_CHECKING:
    from lsx.bundle.bundle import Bundle
    from lsx.core.cancel import CancelToken
    from lsx.core.footage import FootageOptions
    from lsx.core.sampling import SamplingOptions
    from lsx.core.segments import Segment
    from lsx.engines.loading import load_engine
    from lsx.engines.registry import EngineOptions
    from lsx.faces.alignment import Face
    from lsx.faces.avatar import Avatar
    from lsx.media.audio_reader import SoundReader
    from lsx.media.encoding import EncodeOptions
    from lsx.media.video_reader import VideoReader
    from lsx.runtime.avatar_job import prepare_avatar
    from lsx.runtime.lipsync import LipSync
    from lsx.runtime.live.frame import LiveFrame
    from lsx.runtime.live.talker import LiveTalker
    from lsx.runtime.run_report import Progress, RunReport

__version__ = "0.3.0.dev0"

_LAZY = {
    "Avatar": "lsx.faces.avatar",
    "Bundle": "lsx.bundle.bundle",
    "CancelToken": "lsx.core.cancel",
    "EncodeOptions": "lsx.media.encoding",
    "EngineOptions": "lsx.engines.registry",
    "Face": "lsx.faces.alignment",
    "FootageOptions": "lsx.core.footage",
    "LipSync": "lsx.runtime.lipsync",
    "LiveFrame": "lsx.runtime.live.frame",
    "LiveTalker": "lsx.runtime.live.talker",
    "Progress": "lsx.runtime.run_report",
    "RunReport": "lsx.runtime.run_report",
    "SamplingOptions": "lsx.core.sampling",
    "Segment": "lsx.core.segments",
    "SoundReader": "lsx.media.audio_reader",
    "VideoReader": "lsx.media.video_reader",
    "load_engine": "lsx.engines.loading",
    "prepare_avatar": "lsx.runtime.avatar_job",
}

__all__ = [  # noqa: PLE0604  (the errors' names are their file's to know)
    "Avatar",
    "Bundle",
    "CancelToken",
    "EncodeOptions",
    "EngineOptions",
    "Face",
    "FootageOptions",
    "LipSync",
    "LiveFrame",
    "LiveTalker",
    "Progress",
    "RunReport",
    "SamplingOptions",
    "Segment",
    "SoundReader",
    "VideoReader",
    "__version__",
    "load_engine",
    "prepare_avatar",
    *errors.__all__,
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lsx' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
