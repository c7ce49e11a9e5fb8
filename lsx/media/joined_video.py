"""Videos that were encoded one after another, joined into one with its sound; no picture is encoded again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from lsx.core.clock import FrameClock
from lsx.errors import OutputError
from lsx.media.audio_reader import SoundReader
from lsx.media.encoding import EncodeOptions
from lsx.media.opening import decoding, open_media
from lsx.media.targets import Output
from lsx.media.video_writer import OutputFile

__all__ = ["frames_in", "join_videos", "suffix_for_joining"]

_SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Containers that keep times exactly come first."""


def suffix_for_joining(encode: EncodeOptions) -> str:
    """The suffix of a file that holds a part of a video until it is joined with the others."""
    codec = av.Codec(encode.encoder_name, "w").canonical_name
    for suffix, container in _SUFFIXES.items():
        with av.open("/dev/null", "w", format=container) as probe:
            if codec in probe.supported_codecs:
                return suffix
    return ".mkv"


def frames_in(part: Path) -> int:
    """Pictures in a part. Raises MediaError where it is none."""
    with open_media(part) as opened, decoding(part, lambda: "somewhere"):
        return sum(packet.dts is not None for packet in opened.demux(opened.streams.video[0]))


def join_videos(
    parts: Sequence[tuple[int, Path]], path: Output, clock: FrameClock, audio_codec: str, sound: SoundReader
) -> None:
    """Write `path`: the pictures of `parts`, each its first frame's number and a file of VideoWriter's, with `sound`.

    clock : when the frames of the whole are shown. Raises MediaError, OutputError.
    """
    with ExitStack() as stack:
        template = stack.enter_context(open_media(parts[0][1])).streams.video[0]
        streams: list[Any] = []

        def add_video(container: Any) -> None:
            stream: Any = container.add_stream_from_template(template, opaque=True)
            stream.time_base = clock.tick
            if container.format.name != "matroska" or template.codec_context.name == "prores":
                stream.codec_context.codec_tag = template.codec_context.codec_tag
            streams.append(stream)

        output = stack.enter_context(OutputFile(path, add_video, audio_codec, sound))
        order = _Order(path)
        for frame, part in parts:
            with open_media(part) as opened:
                if opened.streams.video[0].codec_context.extradata != template.codec_context.extradata:
                    raise OutputError(f"{path}: its parts cannot be joined: the encoder's headers differ")
            for packet in _packets(part, int(clock.ticks(frame)), clock.tick):
                order.keep(packet)
                packet.stream = streams[0]
                output.mux(packet, (packet.dts + packet.duration) * clock.tick)


def _packets(part: Path, first: int, tick: Fraction) -> Iterator[Any]:
    """Packets of a part's picture, timed in ticks of the whole, in which it begins at tick `first`."""
    with open_media(part) as opened:
        for packet in opened.demux(opened.streams.video[0]):
            if packet.dts is None:  # the end
                continue
            ticks = packet.time_base / tick
            packet.pts, packet.dts = first + round(packet.pts * ticks), first + round(packet.dts * ticks)
            packet.duration = round(packet.duration * ticks)
            packet.time_base = tick
            yield packet


class _Order:
    """Packets' order: encoders that begin anew may count their delay anew."""

    def __init__(self, path: Output) -> None:
        self._path = path
        self._last: int | None = None

    def keep(self, packet: Any) -> None:
        """Move a packet's decoding time on where it does not come after the one before. Raises OutputError."""
        if self._last is not None and packet.dts <= self._last:
            packet.dts = self._last + 1
        if packet.dts > packet.pts:
            raise OutputError(f"{self._path}: its parts cannot be joined: the encoder's times overlap")
        self._last = packet.dts
