"""What an upload is: opened and its first frame decoded in a child process, that no file can make large or last."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsx.errors import LsxError, MediaError

__all__ = ["MediaFacts", "MediaLimits", "probed"]

_COMMAND = (sys.executable, "-m", __name__)
_MEMORY = 4 << 30
_SECONDS = 30
_RATE = 25  # frames a second of what says neither its rate nor its times


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What is taken."""

    max_seconds: float
    max_pixels: int
    max_streams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What a file is."""

    kind: str
    """video or audio."""
    duration: float
    """Seconds."""
    width: int | None
    height: int | None
    fps: float | None
    has_sound: bool


def probed(path: Path, limits: MediaLimits) -> MediaFacts:
    """Look at a file in a child of its own. Raises MediaError, also where the child needs too much."""
    given = json.dumps([str(path), asdict(limits)])
    try:
        ended = subprocess.run(  # noqa: S603
            _COMMAND, input=given.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MediaError(f"it takes more than {_SECONDS} s to open") from error
    try:
        answer = json.loads(ended.stdout)
    except ValueError as error:
        raise MediaError("it takes more memory to open than is allowed, or breaks what opens it") from error
    if "refused" in answer:
        raise MediaError(answer["refused"])
    return MediaFacts(**answer)


def _look(path: Path, limits: MediaLimits) -> MediaFacts:
    """Raises MediaError."""
    from lsx.media.opening import decoding, open_media

    with open_media(path) as container, decoding(path, lambda: "at its start"):
        streams = container.streams
        if len(streams) > limits.max_streams:
            raise MediaError(f"it has {len(streams)} streams; at most {limits.max_streams} are taken")
        stream = next(iter(streams.video), None) or next(iter(streams.audio), None)
        if stream is None:
            raise MediaError("it has neither a picture nor a sound")
        video = stream.type == "video"
        width, height = (int(stream.width), int(stream.height)) if video else (None, None)
        if width is not None and height is not None and width * height > limits.max_pixels:
            raise MediaError(f"it is {width} x {height}; at most {limits.max_pixels} pixels are taken")
        if next(container.decode(stream), None) is None:
            raise MediaError("nothing in it can be decoded")
        duration = _seconds(container, stream)
        if duration > limits.max_seconds:
            raise MediaError(f"it lasts {duration:.0f} s; at most {limits.max_seconds:.0f} s are taken")
        return MediaFacts(
            kind="video" if video else "audio",
            duration=duration,
            width=width,
            height=height,
            fps=float(stream.average_rate) if video and stream.average_rate else None,
            has_sound=len(streams.audio) > 0,
        )


def _seconds(container: Any, stream: Any) -> float:
    """How long a file says that it lasts; what says nothing is read through, undecoded."""
    if container.duration:
        return float(container.duration) / 1_000_000
    if stream.duration:
        return float(stream.duration * stream.time_base)
    last, untimed = 0.0, 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        elif packet.size:
            untimed += 1
    rate = float(getattr(stream, "average_rate", None) or _RATE)
    return max(last, untimed / rate if stream.type == "video" else 0.0)


def main() -> None:
    """Read a path and limits from standard input, and print facts, or why they are refused."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    path, limits = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = asdict(_look(Path(path), MediaLimits(**limits)))
    except MediaError as error:
        answer = {"refused": str(error).replace(f"{path}: ", "")}
    except (LsxError, MemoryError) as error:
        answer = {"refused": str(error) or "it takes more memory to open than is allowed"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
