"""What an output is encoded with: every codec and container, refusals before any work, odd sizes."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames
from lsx.errors import UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.colours import EXACT
from lsx.media.encoding import EncodeOptions, encoders
from lsx.media.video_reader import VideoReader
from lsx.runtime.run_files import open_inputs, writer_like
from tests.written_clip import COUNT, lag, pictures, samples, written

PCM = "pcm_s16le"


@pytest.mark.parametrize(
    ("options", "suffix", "codec", "tag", "pix_fmt", "sound"),
    [
        ({}, ".mp4", "h264", "avc1", "yuv420p", "aac"),
        ({"codec": "h264", "preset": "fast", "audio_codec": "opus"}, ".mkv", "h264", None, "yuv420p", "opus"),
        ({"pix_fmt": "yuv420p10le"}, ".mov", "h264", "avc1", "yuv420p10le", "aac"),
        ({"codec": "hevc"}, ".mp4", "hevc", "hvc1", "yuv420p", "aac"),
        ({"encoder": "libx265", "preset": "fast", "crf": 10}, ".mp4", "hevc", "hvc1", "yuv420p", "aac"),
        ({"codec": "hevc", "pix_fmt": "yuv422p10le", "audio_codec": "pcm"}, ".mov", "hevc", "hvc1", "yuv422p10le", PCM),
        ({"codec": "av1"}, ".mp4", "av1", "av01", "yuv420p", "aac"),
        ({"codec": "av1", "preset": "11", "pix_fmt": "yuv420p10le"}, ".mkv", "av1", None, "yuv420p10le", "aac"),
        ({"codec": "prores", "audio_codec": "pcm"}, ".mov", "prores", "apch", "yuv422p10le", "pcm_s16le"),
        ({"codec": "prores", "preset": "4444"}, ".mkv", "prores", None, "yuv444p12le", "aac"),  # decoded as 12
        ({"encoder": "mpeg4"}, ".mp4", "mpeg4", "mp4v", "yuv420p", "aac"),
        ({"audio_codec": "copy"}, ".mkv", "h264", None, "yuv420p", "pcm_s16le"),
    ],
)  # fmt: skip
def test_every_codec(
    media: Path,
    tmp_path: Path,
    options: dict[str, Any],
    suffix: str,
    codec: str,
    tag: str | None,
    pix_fmt: str,
    sound: str,
) -> None:
    out = written(media / "clip.mp4", media / "sound.wav", tmp_path / f"out{suffix}", **options)
    with av.open(str(out)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.codec.canonical_name == codec
        assert tag is None or video.codec_context.codec_tag == tag
        assert video.codec_context.pix_fmt == pix_fmt
        assert audio.codec_context.codec.canonical_name == sound
    before, after = list(VideoReader(media / "clip.mp4").frames()), pictures(out)
    assert len(after) == COUNT
    error = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(before, after, strict=True)])
    assert 10 * np.log10(255**2 / error) > (25 if codec == "mpeg4" else 35)  # MPEG-4 has no crf: FFmpeg's bit rate
    heard = samples(out)
    assert abs(lag(samples(media / "sound.wav"), heard)) <= (44 if suffix == ".mkv" else 2)  # Matroska counts in ms
    assert len(heard) >= COUNT / 25 * 44100 - 2


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_outputs(media: Path, tmp_path: Path, codec: str, count: int) -> None:
    """x265 makes up the decoding times of one or two frames, which muxers refused at times."""
    encode = EncodeOptions(codec=codec)
    reader = VideoReader(media / "clip.mp4")
    for attempt in range(4):
        path = tmp_path / f"{attempt}.mp4"
        with writer_like(path, reader, encode, SoundReader(media / "sound.wav")) as writer:
            for frame in reader.frames(0, count):
                writer.write(frame)
        assert len(pictures(path)) == count


def test_the_default_is_x264_as_ever(media: Path, tmp_path: Path) -> None:
    """The packets are those of FFmpeg's libx264 at CRF 18, medium, yuv420p, asked directly."""
    out = written(media / "clip.mp4", media / "sound.wav", tmp_path / "out.mp4")
    expected = io.BytesIO()
    with av.open(expected, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.color_range = 1
        for index, frame in enumerate(VideoReader(media / "clip.mp4").frames()):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", src_color_range=2, dst_color_range=1, interpolation=EXACT
            )
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    def packets(file: Any) -> list[bytes]:
        with av.open(file) as container:
            return [bytes(p) for p in container.demux(video=0) if p.size]

    assert packets(str(out)) == packets(io.BytesIO(expected.getvalue()))


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"codec": "vp8"}, "out.mp4", "codec is vp8; choose h264, hevc, av1 or prores"),
        ({"encoder": "libx999"}, "out.mp4", "encoder is libx999"),
        ({"encoder": "libopus"}, "out.mp4", "libopus is for audio"),
        ({"encoder": "libx265", "codec": "h264"}, "out.mp4", "makes hevc"),
        ({"preset": "banana"}, "out.mp4", "libx264 has ultrafast"),
        ({"codec": "av1", "preset": "slow"}, "out.mp4", "libsvtav1 has 0"),
        ({"encoder": "mpeg4", "preset": "slow"}, "out.mp4", "mpeg4 has no presets"),
        ({"encoder": "mpeg4", "crf": 3}, "out.mp4", "mpeg4 has no crf"),
        ({"codec": "prores", "crf": 18}, "out.mov", "ProRes has no crf"),
        ({"codec": "prores"}, "out.mp4", "prores does not go into mp4"),
        ({"codec": "prores"}, "-", "prores does not go into mp4"),
        ({"codec": "av1"}, "out.mov", r"av1 does not go into mov; .* in \.mp4 or \.mkv$"),
        ({"pix_fmt": "rgb24"}, "out.mp4", "libx264 takes yuv420p"),
        ({"codec": "av1", "pix_fmt": "yuv444p"}, "out.mp4", "libsvtav1 takes yuv420p, yuv420p10le"),
        ({"crf": 52}, "out.mp4", r"0\.\.51"),
        ({"codec": "av1", "crf": 64}, "out.mp4", r"0\.\.63"),
        ({"crf": True}, "out.mp4", "crf is True"),
        ({"audio_codec": "mp3"}, "out.mp4", "audio_codec is mp3; choose aac, opus, pcm or copy"),
        ({"audio_codec": "pcm"}, "out.mp4", "pcm does not go into mp4"),
        ({"audio_codec": "opus"}, "out.mov", "opus does not go into mov"),
        ({"audio_codec": "copy"}, "out.mp4", "its sound is pcm_s16le"),
    ],
)
def test_refused_before_any_work(media: Path, tmp_path: Path, options: dict[str, Any], name: str, message: str) -> None:
    target = Path("-") if name == "-" else tmp_path / name
    with pytest.raises(UsageError, match=message) as refused:
        open_inputs(media / "clip.mp4", media / "sound.wav", target, encode=EncodeOptions(**options))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_does_not_open_here(media: Path, tmp_path: Path) -> None:
    broken = [name for _, name, reason in encoders() if reason is not None]
    assert "libx264" not in broken
    for name in broken:
        with pytest.raises(UsageError, match=f"encoder {name} does not work here"):
            open_inputs(media / "clip.mp4", media / "sound.wav", tmp_path / "o.mkv", encode=EncodeOptions(encoder=name))


@pytest.mark.parametrize(("codec", "pix_fmt"), [("h264", "yuv444p"), ("hevc", "yuv444p"), ("prores", "yuv422p10le")])
def test_odd_sizes_keep_every_pixel(media: Path, tmp_path: Path, codec: str, pix_fmt: str) -> None:
    source = tmp_path / "odd.mkv"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 321, 241, "rgb24"
        for frame in portrait_frames(3):
            cut = np.ascontiguousarray(frame[:241, :321])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode(None))
    out = written(source, media / "sound.wav", tmp_path / "out.mov", codec=codec)
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.width, context.height) == (321, 241)
        assert str(context.pix_fmt).replace("yuvj", "yuv") == pix_fmt  # j says full range, as the source has
    with pytest.raises(UsageError, match="321 x 241"):
        written(source, media / "sound.wav", tmp_path / "av1.mp4", codec="av1")
    with pytest.raises(UsageError, match="take pix_fmt yuv444p"):
        written(source, media / "sound.wav", tmp_path / "420.mp4", pix_fmt="yuv420p")
