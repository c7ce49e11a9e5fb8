"""The sound of an output: encoded anew, or the audio file's own packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lsx.errors import UsageError
from lsx.media.audio_reader import SoundReader

__all__ = ["AUDIO_CODECS", "Soundtrack", "check_soundtrack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoder:
    name: str
    sample_format: str
    rates: tuple[int, ...] = ()
    """Samples per second that it takes; empty is any. 48 kHz stands in for others."""
    bit_rate: int = 0
    """Of one channel."""


AUDIO_CODECS = {
    "aac": _Encoder(
        name="aac",
        sample_format="fltp",
        rates=(96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000),
        bit_rate=96_000,
    ),
    "opus": _Encoder(name="libopus", sample_format="flt", rates=(48000, 24000, 16000, 12000, 8000), bit_rate=64_000),
    "pcm": _Encoder(name="pcm_s16le", sample_format="s16"),
}
"""The encoder for each audio codec by lsx's name."""

_UNCOMPRESSED_CHUNK = 1024  # samples a packet, where the encoder does not say
_PLAYED = {  # what players of these containers take, which is less than what FFmpeg's muxers do
    "mp4": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac"},
}


def check_soundtrack(codec: str, sound: SoundReader, container: str, held: set[str]) -> None:
    """Refuse a sound that `container` does not hold. held : codecs that FFmpeg's muxer takes. Raises UsageError."""
    actual = {"pcm": "pcm_s16le", "copy": sound.codec}.get(codec, codec)
    played = _PLAYED.get(container)
    fits = actual in held and (played is None or actual in played or (container == "mov" and actual.startswith("pcm_")))
    if fits:
        return
    if codec == "copy":
        raise UsageError(
            f"{sound.path}: its sound is {actual}, which does not go into {container} as it is; choose audio_codec "
            "aac, or an output in .mkv"
        )
    raise UsageError(f"audio_codec {codec} does not go into {container}; choose aac, or an output in .mkv")


class Soundtrack:
    """The audio stream of an output that is being written."""

    def __init__(self, container: Any, codec: str, sound: SoundReader) -> None:
        self._sound = sound
        self.end = Fraction(0)
        """Seconds of sound handed out so far."""
        if codec == "copy":
            with sound.stream() as source:
                self._stream = container.add_stream_from_template(source)
            self._packets = self._copied()
            return
        encoder = AUDIO_CODECS[codec]
        rate = sound.rate if not encoder.rates or sound.rate in encoder.rates else 48000
        self._stream = container.add_stream(encoder.name, rate=rate, layout=sound.layout)
        context = self._stream.codec_context
        context.format = encoder.sample_format
        if encoder.bit_rate:
            context.bit_rate = encoder.bit_rate * (1 if sound.layout == "mono" else 2)
        context.open()  # here, so that the encoder's frame size is known
        self._packets = self._encoded(encoder.sample_format, rate, context.frame_size or _UNCOMPRESSED_CHUNK)

    def packets(self) -> Iterator[Any]:
        """Lists of packets in order, the encoder's last ones too; each moves `end` on. Raises MediaError."""
        return self._packets

    def _encoded(self, sample_format: str, rate: int, size: int) -> Iterator[Any]:
        samples = 0
        for frame in self._sound.frames(sample_format, rate, size):
            frame.pts, frame.time_base = samples, Fraction(1, rate)
            samples += frame.samples
            self.end = Fraction(samples, rate)
            yield self._stream.encode(frame)
        yield self._stream.encode(None)

    def _copied(self) -> Iterator[Any]:
        for packet, start in self._sound.packets():
            packet.stream = self._stream
            self.end = start
            yield [packet]
