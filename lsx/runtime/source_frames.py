"""Frames that a caller gives, on the grid that a run reads: by index, forwards and backwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from lsx.core.tensors import Frame
from lsx.errors import MediaError
from lsx.media.video_reader import ping_pong
from lsx.runtime.face_aligner import SourceFrames

__all__ = ["indexed"]

_KEPT_BYTES = 2**30  # frames of a one-shot iterable that are kept for playing backwards


def indexed(frames: Iterable[Frame], length: int) -> SourceFrames:
    """`length` frames of `frames` with their source index, ping-pong beyond the end.

    A sequence is read again by index. Of a one-shot iterable the last GiB of frames is kept for playing backwards.
    """
    if isinstance(frames, Sequence):
        if not len(frames):
            raise MediaError("no frames were given")
        for index in range(length):
            source = ping_pong(index, len(frames))
            yield source, frames[source]
        return
    recent: deque[Frame] = deque()
    count, size = 0, 0
    for frame in frames:
        yield count, frame
        count += 1
        if count == length:
            return
        recent.append(frame)
        size += frame.nbytes
        while size > _KEPT_BYTES and len(recent) > 1:
            size -= recent.popleft().nbytes
    if not count:
        raise MediaError("no frames were given")
    for index in range(count, length):
        source = ping_pong(index, count)
        if source < count - len(recent):
            raise MediaError(
                f"the frames ended after {count}, and only the last {len(recent)} are kept for playing backwards. "
                "Give a sequence, or a length that the frames reach"
            )
        yield source, recent[source - (count - len(recent))]
