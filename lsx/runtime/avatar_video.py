"""An avatar in the place of a run's video: its frames as a source, its faces in the place of a detector's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.footage import FootageOptions
from lsx.core.tensors import Frame
from lsx.faces.alignment import AlignedFace
from lsx.faces.avatar import Avatar
from lsx.faces.avatar_folder import is_avatar
from lsx.faces.detector import FaceDetector
from lsx.faces.speaker import SpeakerChoice
from lsx.media.given import VideoInput, VideoSource, open_video
from lsx.media.video_reader import VideoReader
from lsx.runtime.face_aligner import FoundFaces, FrameFaces
from lsx.runtime.face_choice import Slot, faces_for
from lsx.runtime.speaking_faces import Looked
from lsx.runtime.sync_agreement import sync_judge
from lsx.runtime.timeline import Timeline

__all__ = ["AvatarFaces", "AvatarVideo", "faces_of", "open_source"]


class AvatarVideo:
    """The frames of an avatar. Raises MediaError."""

    def __init__(self, avatar: Avatar) -> None:
        self.avatar = avatar
        own, proxy = avatar.manifest, avatar.manifest.proxy
        rate = None if proxy is not None else FootageOptions(fps=own.fps).rate
        self._reader = VideoReader(avatar.source, rate)
        self.width, self.height, self.count = self._reader.width, self._reader.height, self._reader.count
        self.colours = self._reader.colours if proxy is None else proxy.colours
        self.pixel_aspect = self._reader.pixel_aspect if proxy is None else proxy.pixel_aspect
        self.clock = self._reader.clock if proxy is None else proxy.clock
        self.path: Path | None = avatar.source if proxy is None else None
        """The file that has its own sound; a proxy has none."""
        self.start = self._reader.start

    def at(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
        """The frames `indices`, in that order, each with its index."""
        return self._reader.at(indices)

    def ping_pong(self, length: int) -> Iterator[tuple[int, Frame]]:
        """`length` frames with their index: forwards, backwards, forwards, ..."""
        return self._reader.ping_pong(length)


class AvatarFaces:
    """The faces that an avatar keeps; nothing is looked for, and nothing cut out."""

    advice = ". Its faces are those of an avatar, which has none in these frames"

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self.choices: tuple[SpeakerChoice, ...] = avatar.manifest.choices

    def look(self, _: Frame) -> None:
        """Nothing: it is known."""

    def keep_history(self, marks: Collection[int]) -> None:
        """There is none."""

    def history(self, last: int) -> dict[str, NDArray[Any]]:
        """There is none."""
        del last
        return {}

    def go_on_after(self, *_: Any) -> None:
        """Nothing goes from frame to frame."""

    def aligned(self, source: int, _: Any, __: Frame) -> dict[Slot, AlignedFace]:
        """The faces of source frame `source`, with their moments."""
        return {Slot(0, place): face for place, face in self._avatar.faces(source).items()}


def open_source(video: VideoInput | Avatar, footage: FootageOptions) -> tuple[VideoSource, FootageOptions]:
    """The frames of a video or an avatar, and the options with what an avatar was prepared with.

    Raises UsageError, MediaError.
    """
    if isinstance(video, Avatar) or (isinstance(video, Path | str) and is_avatar(Path(video))):
        video = AvatarVideo(video if isinstance(video, Avatar) else Avatar.open(video))
    if isinstance(video, AvatarVideo):
        return video, video.avatar.footage(footage)
    return open_video(video, footage.rate), footage


def faces_of(
    video: VideoSource,
    footage: FootageOptions,
    timeline: Timeline,
    detector: FaceDetector,
    bundle: Bundle,
    looked: Looked,
    kept: Path | None = None,
) -> FrameFaces:
    """The source of the faces of a run over `video`. Raises UsageError, MediaError, FaceNotFound.

    looked : called while all frames are looked at, where that is needed first. kept : a file that has that, or gets it.
    """
    if isinstance(video, AvatarVideo):
        return AvatarFaces(video.avatar)
    choice = faces_for(footage, detector, video, timeline, looked, lambda: sync_judge(bundle), kept)
    return FoundFaces(choice, bundle.model.resolution)
