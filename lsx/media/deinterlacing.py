"""Interlaced frames to whole ones, a frame for a frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import av
import av.filter

__all__ = ["deinterlaced"]


def deinterlaced(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """The frames with their fields joined (bwdif, a frame for a frame) from the first interlaced one on.

    Frames that are not interlaced, before and between, stay as they are.
    """
    graph: Any = None
    stamps: deque[tuple[int | None, Any]] = deque()  # the filter counts time in half steps

    def ready() -> Iterator[Any]:
        while True:
            try:
                done = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            done.pts, done.time_base = stamps.popleft()
            yield done

    for frame in frames:
        if graph is None:
            if not frame.interlaced_frame:
                yield frame
                continue
            graph = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base
            )
            filtered = graph.add("bwdif", "mode=send_frame:deint=interlaced")
            sink = graph.add("buffersink")
            source.link_to(filtered)
            filtered.link_to(sink)
            graph.configure()
        stamps.append((frame.pts, frame.time_base))
        graph.push(frame)
        yield from ready()
    if graph is not None:
        graph.push(None)
        yield from ready()
