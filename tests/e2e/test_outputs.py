"""What a written file holds besides its codec: copied sound, ten bits, a pipe, a full disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import speech
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.errors import OutputError
from lsx.media.audio_reader import SoundReader
from lsx.media.encoding import EncodeOptions
from lsx.media.video_reader import VideoReader
from lsx.runtime.run_files import open_inputs, writer_like
from tests.written_clip import lag, pictures, samples, written


def encoded(path: Path, codec: str) -> Path:
    """Speech as `codec`, as a user's recorder would write it."""
    sound = speech(1.2, 48000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=48000, layout="mono")
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", 48000, frame_size=size)
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate = 48000
        for number, part in enumerate([*resampler.resample(frame), *resampler.resample(None)]):
            part.pts = number * size
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("source", "codec", "suffix"),
    [
        ("a.m4a", "aac", ".mp4"),
        ("a.m4a", "aac", ".mkv"),
        ("a.aac", "aac", ".mp4"),
        ("a.aac", "aac", ".mkv"),
        ("a.ts", "aac", ".mov"),
        ("a.mp3", "libmp3lame", ".mp4"),
        ("a.ogg", "libopus", ".mp4"),
        ("a.ogg", "libopus", ".mkv"),
        ("a.flac", "flac", ".mkv"),
        ("a.wav", "pcm_s24le", ".mov"),
    ],
)
def test_sound_is_copied(media: Path, tmp_path: Path, source: str, codec: str, suffix: str) -> None:
    """The packets are the source's own, and are heard when the source's are."""
    audio = encoded(tmp_path / source, codec)
    out = written(media / "clip.mp4", audio, tmp_path / f"out{suffix}", audio_codec="copy")

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size]

    before, after = packets(audio), packets(out)
    if source.endswith((".aac", ".ts")):  # those wrap each packet in a header of 7 bytes, which is left out
        before = [packet[7:] for packet in before]
    assert b"".join(after) == b"".join(before)
    # The model hears the decoded file from its first sample on, so that is where the video begins.
    alone = SoundReader(audio).samples().astype(float)
    again = samples(out)
    heard = np.interp(np.arange(0, len(again), 44100 / 16000), np.arange(len(again)), again)
    assert abs(lag(alone, heard)) <= 16  # a millisecond


def test_standard_output(bundle: Callable[[Precision, int], Bundle], media: Path, tmp_path: Path) -> None:
    """`-o -` writes fragmented MP4 and nothing else to standard output; a closed pipe is one line."""
    command = [sys.executable, "-m", "lsx", "run", str(bundle("fp32", 64).path), str(media / "clip.mp4")]
    command += [str(media / "sound.wav"), "--steps", "1", "--guidance", "1"]
    file = tmp_path / "out.mp4"
    subprocess.run([*command, "-o", str(file)], check=True, capture_output=True)
    piped = subprocess.run([*command, "-o", "-"], check=True, capture_output=True)
    assert list(boxes(piped.stdout))[:2] == ["ftyp", "moov"]
    assert "moof" in boxes(piped.stdout)
    assert b"result: -" in piped.stderr
    (tmp_path / "piped.mp4").write_bytes(piped.stdout)
    for one, other in zip(pictures(file), pictures(tmp_path / "piped.mp4"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert lag(samples(file), samples(tmp_path / "piped.mp4")) == 0
    with subprocess.Popen([*command, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if line.startswith("lsx: ") and "warning" not in line]
    assert lines == ["lsx: OutputError: standard output: cannot be written: Broken pipe"]
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def boxes(data: bytes) -> list[str]:
    """The types of an MP4's top-level boxes."""
    found, position = [], 0
    while position + 8 <= len(data):
        found.append(data[position + 4 : position + 8].decode("latin1"))
        position += int.from_bytes(data[position : position + 4], "big")
    return found


def test_a_disk_that_is_full(media: Path, tmp_path: Path) -> None:
    reader, sound, *_ = open_inputs(media / "clip.mp4", media / "sound.wav", tmp_path / "out.mp4")
    assert isinstance(reader, VideoReader)
    assert sound is not None
    writer = writer_like(tmp_path / "out.mp4", reader, EncodeOptions(), sound)
    writer._target.commit = _full  # type: ignore[method-assign]
    for frame in reader.frames():
        writer.write(frame)
    with pytest.raises(OutputError, match="the disk is full"):
        writer.__exit__(None)
    assert not list(tmp_path.iterdir())


def _full() -> None:
    raise OSError(28, "No space left on device")


def ramp(first: float, last: float, width: int) -> NDArray[np.uint16]:
    """Ten-bit luma [64, width], limited range, that rises by less than a level every 8 pixels."""
    row = np.linspace(first, last, width)
    return np.tile(np.round(row).astype(np.uint16), (64, 1))


@pytest.mark.parametrize("codec", ["ffv1", "prores_ks", "libx265"])
def test_ten_bits_are_dithered(tmp_path: Path, codec: str) -> None:
    """A gradient of ten bits: the mean over 8 x 8 pixels is that of the ten-bit values, where rounding errs by 0.37."""
    path, luma = tmp_path / "ramp.mkv", ramp(300, 380, 640)
    pix_fmt = "yuv420p10le" if codec == "libx265" else "yuv422p10le"
    options = {"libx265": {"x265-params": "lossless=1:log-level=none"}, "prores_ks": {"profile": "hq"}}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = 640, 64, pix_fmt
        frame = av.VideoFrame(640, 64, pix_fmt)
        for plane, values in zip(frame.planes, (luma, None, None), strict=True):
            array = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)  # type: ignore[call-overload]
            array[:, : plane.width] = 512 if values is None else values
        for index in range(4):  # x265 gives garbage for dts where there are two
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:  # what the codec kept, which ProRes does not do to the bit
        decoded = next(container.decode(video=0))
        kept = np.frombuffer(decoded.planes[0], np.uint16).reshape(64, -1)[:, :640]  # type: ignore[call-overload]
    exact = (kept - 64.0) / 876 * 255
    first, second, *_ = VideoReader(path).frames()
    np.testing.assert_array_equal(first, second)
    blocks = first.reshape(8, 8, 80, 8, 3).mean((1, 3))
    wanted = exact.reshape(8, 8, 80, 8).mean((1, 3))
    assert np.abs(blocks - wanted[:, :, None]).max() < 0.1
    assert np.abs(first - exact[:, :, None]).max() <= 1.01
    assert np.abs(np.round(exact).reshape(8, 8, 80, 8).mean((1, 3)) - wanted).max() > 0.3
