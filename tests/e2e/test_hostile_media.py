"""Damaged files and files that are scripts: read or refused on one line, and nothing else is ever opened."""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lsx.errors import MediaError
from lsx.media.audio_reader import SoundReader
from lsx.media.opening import open_media
from lsx.media.video_reader import VideoReader
from tests.corpus import KINDS, make_sound_file, try_corpus


def test_120_damaged_files(tmp_path: Path) -> None:
    results = try_corpus(tmp_path, range(5000, 5120))
    counts = Counter(results.values())
    assert set(counts) == {"decoded", "refused"}, {k: v for k, v in results.items() if v not in ("decoded", "refused")}
    assert len(results) == 120
    assert min(counts.values()) > 20  # faults that matter, in files that can be read


@pytest.mark.parametrize("number", range(len(KINDS)), ids=lambda n: "-".join(str(part) for part in KINDS[n]))
def test_every_kind_is_read_whole(tmp_path: Path, number: int) -> None:
    path = make_sound_file(tmp_path, number)
    if KINDS[number][1]:
        assert abs(sum(1 for _ in VideoReader(path).frames()) - 24) <= 1
    assert abs(len(SoundReader(path).samples()) / 16000 - 0.96) < 0.1


@pytest.mark.parametrize("error", [IndexError, KeyError, ValueError, MemoryError, OverflowError, ZeroDivisionError])
@pytest.mark.parametrize("method", ["demux", "decode"])
def test_any_error_of_the_decoder_is_a_media_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], method: str
) -> None:
    """PyAV raises IndexError where a stream appears in the middle of a transport stream, and others elsewhere."""
    path = make_sound_file(tmp_path, 0)
    opened = open_media(path)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(opened, name)

        def __enter__(self) -> Broken:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def _some(self, *given: Any) -> Iterator[Any]:
            for count, item in enumerate(getattr(opened, method)(*given)):
                if count == 3:
                    raise error("stream index out of range\nand a second line")
                yield item

    setattr(Broken, method, Broken._some)
    if method == "demux":
        monkeypatch.setattr("lsx.media.video_reader.open_media", lambda _: Broken())
        with pytest.raises(MediaError, match=r"whole0.mp4: damaged after 3 frames \(stream index out of range\)"):
            VideoReader(path)
    else:
        reader, sound = VideoReader(path), SoundReader(path)
        monkeypatch.setattr("lsx.media.video_reader.open_media", lambda _: Broken())
        monkeypatch.setattr("lsx.media.audio_reader.open_media", lambda _: Broken())
        with pytest.raises(MediaError, match=r"whole0.mp4: damaged at 0.08 s, after 3 frames"):
            list(reader.frames())
        opened.seek(0)
        with pytest.raises(MediaError, match=r"whole0.mp4: damaged at 0.\d\d s of its sound"):
            sound.samples()


def _scripts(canary: Path, address: str) -> dict[str, str]:
    return {
        "ffconcat": f"ffconcat version 1.0\nfile '{canary.name}'\n",
        "ffconcat of an address": f"ffconcat version 1.0\nfile '{address}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{canary.name}\n#EXT-X-ENDLIST\n",
        "hls of an address": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0" '
        f'bandwidth="1"><BaseURL>{canary.name}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "edl": f"CMX3600\nTITLE: x\n001  {canary.name} V C 00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00\n",
        "pls": f"[playlist]\nFile1={canary.name}\nNumberOfEntries=1\n",
        "vobsub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        f"<Id>{canary.name}</Id></CompositionPlaylist>",
        "asx": f'<asx version="3.0"><entry><ref href="{address}"/></entry></asx>',
    }


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".txt"])
def test_scripts_open_nothing_else(tmp_path: Path, suffix: str) -> None:
    """A canary that would be read, and a socket that would be called, were they named by what is opened."""
    canary = make_sound_file(tmp_path, 0).rename(tmp_path / "canary.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.mp4"
        for name, text in _scripts(canary, address).items():
            path = tmp_path / f"script{suffix}"
            path.write_text(text)
            for kind in (VideoReader, SoundReader):
                with pytest.raises(MediaError, match=f"script{suffix}: not a readable media file"):
                    kind(path)
            with pytest.raises(BlockingIOError):
                server.accept()  # nobody called
            assert name


@pytest.mark.parametrize(
    "name", ["concat:canary.mp4|canary.mp4", "file:canary.mp4", "subfile,,start,0,end,0,,:canary.mp4", "http:x.mp4"]
)
def test_a_name_is_never_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    canary = make_sound_file(tmp_path, 0).rename(tmp_path / "canary.mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="no such file"):
        VideoReader(name)
    shutil.copy(canary, tmp_path / name)  # a file of that very name is read as one
    assert VideoReader(name).count == 24


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="not a regular file"):
        VideoReader(tmp_path / "pipe.mp4")


@pytest.mark.parametrize(("transfer", "word"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_with_the_way_to_convert_it(tmp_path: Path, transfer: int, word: str) -> None:
    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, transfer, 9
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p10le")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(MediaError, match=rf"HDR video \({word}.*ffmpeg -i"):
        VideoReader(path)


def test_time_stamps_that_leap_are_refused(tmp_path: Path) -> None:
    """The grid of 25 a second would hold one frame for hours."""
    path = tmp_path / "leap.mkv"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in (0, 1, 2, 10**6, 10**6 + 1):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"leap by 39999 s|leap by 40000 s"):
        VideoReader(path)
