"""The frames of an avatar in memory, played back and forth for as long as it lives."""

from __future__ import annotations

import numpy as np

from lsx.core.footage import FootageOptions
from lsx.errors import UsageError
from lsx.faces.avatar import Avatar
from lsx.runtime.avatar_video import AvatarFaces, AvatarVideo
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.timeline import Timeline

__all__ = ["AvatarLoop"]

MOST_BYTES = 4 << 30
"""The most that the frames may take, which are all kept: any of them may be wanted at any time."""


class AvatarLoop:
    """Raises UsageError for an avatar that is not at 25 frames a second or has too many frames, MediaError."""

    def __init__(self, avatar: Avatar, most_bytes: int = MOST_BYTES) -> None:
        video = AvatarVideo(avatar)
        footage = avatar.footage(FootageOptions())
        if footage.fps != FootageOptions().fps:
            raise UsageError(
                f"{avatar.path}: prepared at {footage.fps} frames a second, and live speech has 25: "
                "prepare it without --fps"
            )
        timeline = Timeline.of_video(footage, video.count, video.clock)
        self.width, self.height, self.count = int(video.width), int(video.height), timeline.frames
        size = self.width * self.height * 3 * self.count
        if size > most_bytes:
            raise UsageError(
                f"{avatar.path}: its {self.count} frames take {size / 2**30:.1f} GiB, and live speech keeps them all; "
                f"at most {most_bytes / 2**30:.1f}: prepare a shorter part (--start, --end), or a smaller proxy"
            )
        self._first = timeline.first
        self._frames = [frame for _, frame in video.at(np.arange(self._first, self._first + self.count))]
        self._faces = AvatarFaces(avatar)

    def source(self, position: int) -> int:
        """The frame of the part at `position`, from 0 on: forwards, backwards, forwards, ..., as a run plays it."""
        place = position % (2 * self.count)
        return min(place, 2 * self.count - 1 - place)

    def item(self, position: int) -> AlignedFrame:
        """The frame at `position`, with its faces. Nobody may paint on it."""
        source = self.source(position)
        frame = self._frames[source]
        return AlignedFrame(position, frame, self._faces.aligned(self._first + source, None, frame))
