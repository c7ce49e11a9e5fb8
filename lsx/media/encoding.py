"""How an output is encoded: what was asked for, checked against the container and this machine before any work."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypedDict

import av
import numpy as np

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.keywords import named_alone
from lsx.errors import LsxError, UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.colours import ColourTags
from lsx.media.opening import reason_of
from lsx.media.soundtrack import AUDIO_CODECS, Soundtrack, check_soundtrack
from lsx.media.targets import CONTAINERS

__all__ = ["CODECS", "EncodeKeywords", "EncodeOptions", "VideoTrack", "encoders"]

CODECS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "prores": "prores_ks"}
"""FFmpeg's encoder for each codec where none is named."""

_X264_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_PRORES_PROFILES = ("proxy", "lt", "standard", "hq", "4444", "4444xq")
_PRESETS = {
    "libx264": _X264_PRESETS,
    "libx265": _X264_PRESETS,
    "libsvtav1": tuple(str(number) for number in range(14)),
    "prores_ks": _PRORES_PROFILES,
}
_DEFAULT_PRESETS = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8", "prores_ks": "hq"}
_VISUALLY_LOSSLESS = {"h264": 18, "hevc": 20, "av1": 24, "vp9": 24}
_MOST_CRF = {"av1": 63, "vp9": 63}
_NOT_HELD = (("av1", "mov"),)  # though its muxer counts it among what it holds
_HARDWARE = ("nvenc", "qsv", "vaapi", "amf", "videotoolbox", "v4l2m2m")
_TRIAL_FRAMES = 2
_X265_DELAY = 2  # frames


class EncodeKeywords(TypedDict, total=False):
    """EncodeOptions' fields as keywords."""

    codec: str | None
    encoder: str | None
    preset: str | None
    pix_fmt: str | None
    audio_codec: str
    crf: int | None


@named_alone
@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """What an output is encoded with. Raises UsageError for a value that no output could have.

    Examples
    --------
    >>> EncodeOptions(codec="hevc").encoder_name
    'libx265'
    """

    codec: str | None = None
    """h264, hevc, av1 or prores; default the codec of `encoder`, or h264."""
    encoder: str | None = None
    """FFmpeg's name of a video encoder, as h264_nvenc; default x264, x265, SVT-AV1, prores_ks."""
    preset: str | None = None
    """The encoder's own word: medium and slow of x264, 8 of SVT-AV1, hq and 4444 (profiles) of ProRes."""
    pix_fmt: str | None = None
    """FFmpeg's name of a YUV format; default yuv420p, yuv444p where a side is odd, yuv422p10le for ProRes."""
    audio_codec: str = "aac"
    """aac, opus, pcm (16 bits), or copy: the packets of the audio file unchanged."""
    crf: int | None = None
    """Constant quality, lower is better: 0..51 (H.264, HEVC), 0..63 (AV1); default 18, 20, 24. ProRes has none."""

    def __post_init__(self) -> None:
        for name in ("codec", "encoder", "preset", "pix_fmt", "audio_codec"):
            word: object = getattr(self, name)
            if word is not None and not isinstance(word, str):
                raise UsageError(f"{name} is {word!r}; give a name of FFmpeg's")
        if self.codec is not None and self.codec not in CODECS:
            raise UsageError(f"codec is {self.codec}; choose {_either(CODECS)}")
        if self.audio_codec not in (*AUDIO_CODECS, "copy"):
            raise UsageError(f"audio_codec is {self.audio_codec}; choose {_either((*AUDIO_CODECS, 'copy'))}")
        actual = _video_codec(self.encoder_name)
        if self.codec is not None and actual != self.codec:
            raise UsageError(f"encoder {self.encoder} makes {actual}, and codec is {self.codec}; give one of the two")
        self._check_crf(actual)
        known = _PRESETS.get(self.encoder_name)
        if self.preset is not None and known is not None and self.preset not in known:
            raise UsageError(f"preset is {self.preset}; {self.encoder_name} has {_either(known)}")
        if self.preset is not None and known is None and "preset" not in _options_of(self.encoder_name):
            raise UsageError(f"preset is {self.preset}, and {self.encoder_name} has no presets; leave it out")
        if self.pix_fmt is not None:
            self._check_pix_fmt(self.pix_fmt)

    def _check_crf(self, codec: str) -> None:
        most = _MOST_CRF.get(codec, 51)
        if self.crf is None:
            return
        if isinstance(self.crf, bool) or not isinstance(self.crf, int) or not 0 <= self.crf <= most:
            default = _VISUALLY_LOSSLESS.get(codec, 18)
            raise UsageError(f"crf is {self.crf}; give a whole number in 0..{most} ({default} is visually lossless)")
        if codec == "prores":
            raise UsageError("ProRes has no crf; its quality is its profile: preset " + _either(_PRORES_PROFILES))
        if not _options_of(self.encoder_name) & {"crf", "cq"}:
            raise UsageError(f"encoder {self.encoder_name} has no crf; leave it out")

    def _check_pix_fmt(self, name: str) -> None:
        taken = [f.name for f in av.Codec(self.encoder_name, "w").video_formats or ()]
        # yuvj formats are yuv formats that say their range twice; RGB and alpha are not what the pipeline has.
        usable = [n for n in taken if (n.startswith("yuv4") or n in ("nv12", "p010le"))]
        if self.encoder_name.startswith("prores"):
            usable = [self._prores_pix_fmt()]  # the profile says it
        if name not in usable:
            raise UsageError(f"pix_fmt is {name}; {self.encoder_name} takes {', '.join(usable) or 'none of YUV'}")

    def _prores_pix_fmt(self) -> str:
        return "yuv444p10le" if (self.preset or "").startswith("4444") else "yuv422p10le"

    @property
    def encoder_name(self) -> str:
        """FFmpeg's name of the video encoder."""
        return self.encoder or CODECS[self.codec or "h264"]

    def pix_fmt_for(self, size: tuple[int, int]) -> str:
        """The pixel format for frames of `size`, width and height. 4:2:0 needs even sides; odd ones keep every pixel.

        Raises UsageError for a format, or an encoder, that cannot hold frames of that size.

        Examples
        --------
        >>> EncodeOptions().pix_fmt_for((641, 480))
        'yuv444p'
        """
        odd = size[0] % 2 == 1 or size[1] % 2 == 1
        taken = [f.name for f in av.Codec(self.encoder_name, "w").video_formats or ()]
        if self.encoder_name.startswith("prores"):
            return self._prores_pix_fmt()  # of any size: it codes whole blocks
        name = self.pix_fmt or ("yuv444p" if odd and "yuv444p" in taken else "yuv420p")
        chroma = av.VideoFormat(name, 2, 2).components[1]
        if (chroma.width < 2 and size[0] % 2) or (chroma.height < 2 and size[1] % 2):
            full = [n for n in taken if n.startswith("yuv444p")]
            instead = f"pix_fmt {full[0]}" if full else "codec h264, which has 4:4:4"
            raise UsageError(
                f"frames of {size[0]} x {size[1]} do not fit {name} of {self.encoder_name}; take {instead}"
            )
        return name

    def encoder_options(self) -> dict[str, str]:
        """What FFmpeg's encoder is told besides size, format and colours.

        Examples
        --------
        >>> EncodeOptions(crf=20).encoder_options()["crf"]
        '20'
        """
        name = self.encoder_name
        preset = self.preset or _DEFAULT_PRESETS.get(name)
        if name.startswith("prores"):
            return {"profile": preset or "hq"}
        crf = _VISUALLY_LOSSLESS.get(_video_codec(name), 18) if self.crf is None else self.crf
        supported = _options_of(name)
        options: dict[str, str] = {}
        if "crf" in supported:
            options["crf"] = str(crf)
        elif "cq" in supported:  # NVENC: variable bit rate whose target is a quality
            options |= {"rc": "vbr", "cq": str(crf)}
        if preset is not None:
            options["preset"] = preset
        if name == "libx265":
            options["x265-params"] = "log-level=none"
        return options

    def check(self, container: str, size: tuple[int, int], sound: SoundReader | None = None) -> None:
        """Refuse what cannot be: an encoder that does not open here, a codec that the container does not hold.

        Encodes two frames and the sound's beginning into memory. container : FFmpeg's name. Raises UsageError.
        """
        with av.open(io.BytesIO(), "w", format=container) as probe:
            held = probe.supported_codecs
        codec = _video_codec(self.encoder_name)
        if codec not in held or (codec, container) in _NOT_HELD:
            others = [suffix for suffix, name in CONTAINERS.items() if name != container]
            raise UsageError(
                f"{codec} does not go into {container}; choose another codec, or an output in {' or '.join(others)}"
            )
        if sound is not None:
            check_soundtrack(self.audio_codec, sound, container, held)
        self.pix_fmt_for(size)
        try:
            _trial(self, container, size, sound)
        except LsxError:
            raise
        except Exception as error:  # of FFmpeg's classes and of PyAV's
            raise UsageError(
                f"encoder {self.encoder_name} does not work here with {size[0]} x {size[1]} "
                f"{self.pix_fmt_for(size)} into {container} ({reason_of(error)}). See what does: lsx doctor"
            ) from error


def _mean(clock: FrameClock) -> Fraction:
    """The rate that a stream is said to have: an encoder's budgets and some players go by it."""
    return clock.rate if clock.starts is None else clock.rate.limit_denominator(1001)


class VideoTrack:
    """The video stream of an output that is being written."""

    def __init__(
        self,
        container: Any,
        options: EncodeOptions,
        size: tuple[int, int],
        colours: ColourTags,
        aspect: Fraction,
        clock: FrameClock = MODEL_CLOCK,
    ) -> None:
        if options.encoder_name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # it has no other way to keep it from printing: errors only
        stream = container.add_stream(options.encoder_name, rate=_mean(clock), options=options.encoder_options())
        stream.width, stream.height = size
        stream.pix_fmt = options.pix_fmt_for(size)
        context = stream.codec_context
        context.time_base = clock.tick
        context.sample_aspect_ratio = aspect
        colours.tag(context)
        if context.codec.canonical_name == "hevc" and container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players take no other
        self._stream = stream
        self._colours = colours
        self._clock = clock
        self.count = 0
        """Frames encoded."""

    def encode(self, frame: Any) -> Any:
        """Packets of the next frame, uint8 [height, width, 3] RGB; None flushes."""
        if frame is None:
            packets = self._stream.encode(None)
            if self.count <= _X265_DELAY:  # x265 knows its delay from the third frame on; before, its dts are garbage
                for packet in packets:
                    packet.dts = packet.pts
            return packets
        picture = self._colours.picture(frame, self._stream.pix_fmt)
        picture.pts, picture.time_base = int(self._clock.ticks(self.count)), self._clock.tick
        self.count += 1
        return self._stream.encode(picture)


def encoders() -> list[tuple[str, str, str | None]]:
    """(codec, encoder, None or why it does not work here) of each encoder for lsx's codecs in this FFmpeg.

    Each is tried: it encodes two frames in memory.
    """
    rows: list[tuple[str, str, str | None]] = []
    for codec, default in CODECS.items():
        hardware = (f"{codec}_{name}" for name in _HARDWARE)
        for name in (default, *(name for name in hardware if name in av.codecs_available)):
            reason = None
            try:
                _trial(EncodeOptions(encoder=name), "matroska", (256, 256), None)
            except Exception as error:
                reason = reason_of(error)
            rows.append((codec, name, reason))
    return rows


def _trial(options: EncodeOptions, container: str, size: tuple[int, int], sound: SoundReader | None) -> None:
    """Encode the beginning of an output in memory. Raises what FFmpeg raises."""
    grey = np.full((size[1], size[0], 3), 128, np.uint8)
    with av.open(io.BytesIO(), "w", format=container) as probe:
        video = VideoTrack(probe, options, size, ColourTags(), Fraction(1))
        track = None if sound is None else Soundtrack(probe, options.audio_codec, sound)
        for frame in (*[grey] * _TRIAL_FRAMES, None):
            probe.mux(video.encode(frame))
        if track is not None:
            probe.mux(next(track.packets(), []))


def _video_codec(encoder: str) -> str:
    """FFmpeg's name of the codec that `encoder` makes. Raises UsageError."""
    try:
        codec = av.Codec(encoder, "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise UsageError(
            f"encoder is {encoder}, which this FFmpeg does not have. See what it has: lsx doctor"
        ) from error
    if codec.type != "video":
        raise UsageError(f"encoder {encoder} is for {codec.type}; name one for video, or use audio_codec")
    return str(codec.canonical_name)


def _options_of(encoder: str) -> set[str]:
    context: Any = av.CodecContext.create(encoder, "w")
    return {option.name for option in context.supported_options.private}


def _either(names: Any) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
