"""Uploads that are small and would be endless, huge, or names of other files: refused, and nothing is left."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient

from lsx.serving.database import migrate
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings

_MOST_RESIDENT = 1 << 30  # bytes of a probe
_HD = (1920, 1080)


def _repeated(container: str, packets: int, seconds_each: float = 0.04, size: tuple[int, int] = _HD) -> bytes:
    """A video that shows one frame over and over: encoded once, its packets copied."""
    file, base = io.BytesIO(), Fraction(1, 1000)
    step = round(seconds_each * 1000)
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), "rgb24")
        encoded = [*stream.encode(picture), *stream.encode()]
        content, extra = bytes(encoded[0]), encoded[0].is_keyframe
        for index in range(packets):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, extra
            packet.pts = packet.dts = index * step
            packet.duration = step
            output.mux(packet)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int) -> bytes:
    """A picture that says that it is so large."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(100_000))) + _chunk(b"IEND", b"")


def _pictured(width: int, height: int) -> bytes:
    """A container whose only frame is such a picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as output:
        stream: Any = output.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        packet = av.Packet(_png(width, height))
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        output.mux(packet)
    return file.getvalue()


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kinds and contents of an MP4's boxes."""
    place = 0
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place + 8 : place + size]
        place += size


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def _of_streams(count: int) -> bytes:
    """An MP4 that says of its one stream so many times that there is one."""
    boxes = dict(_boxes(_repeated("mp4", 2, size=(64, 48))))
    parts = dict(_boxes(boxes[b"moov"]))
    track = _box(b"trak", parts.pop(b"trak"))
    boxes[b"moov"] = b"".join(_box(*part) for part in parts.items()) + track * count
    return b"".join(_box(*box) for box in boxes.items())


def _attachments(count: int) -> bytes:
    """A container of attached files alone."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        for number in range(count):
            output.add_attachment(f"../../{number}.ttf", "font/ttf", bytes(1000))
        output.start_encoding()
    return file.getvalue()


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../video.mp4", _repeated("mp4", 2, size=(64, 48)))
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


_SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile ../jobs.sqlite\nfile 'http://127.0.0.1/a.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n../../uploads/asset_1\n#EXT-X-ENDLIST\n",
    "hls-http": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "hls-concat": "#EXTM3U\n#EXTINF:1,\nconcat:/etc/hostname|/etc/hosts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><BaseURL>'
    "http://127.0.0.1:9/</BaseURL></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "m3u": "http://127.0.0.1:9/a.mp3\nfile:///etc/passwd\n",
    "smil": '<smil><body><video src="http://127.0.0.1:9/a.mp4"/></body></smil>',
}
_BOMBS: dict[str, Callable[[], bytes]] = {
    "4.7-GB-raw": lambda: _repeated("mp4", 1525),
    "a-day-in-two-frames": lambda: _repeated("mp4", 2, 86_400),
    "no-length-said": lambda: _repeated("h264", 1525),
    "huge-picture": lambda: _png(100_000, 100_000),
    "huge-picture-in-a-container": lambda: _pictured(100_000, 100_000),
    "large-picture-in-a-container": lambda: _pictured(16_000, 16_000),
    "10000-streams": lambda: _of_streams(10_000),
    "900-streams": lambda: _of_streams(900),
    "attachments": lambda: _attachments(4),
    "zip": _zipped,
} | {name: lambda text=text: text.encode() for name, text in _SCRIPTS.items()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data = tmp_path_factory.mktemp("data")
    migrate(f"sqlite:///{data / 'jobs.sqlite'}")
    settings = ServeSettings(data=data, min_free_bytes=0, max_seconds=60)
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.mark.parametrize("bomb", _BOMBS)
def test_a_bomb_is_refused(client: TestClient, bomb: str) -> None:
    """With a code, within the probe's limits, by name of what is wrong; no file and no row is left."""
    content = _BOMBS[bomb]()
    assert len(content) < 16 << 20
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    answer = client.post("/v1/assets", params={"filename": "../../etc/video.mp4"}, content=content)
    assert (answer.status_code, answer.json()["code"]) == (415, "unreadable_media"), answer.text
    assert "to open" not in answer.json()["detail"], "it was ended by the probe's limits, and not refused"
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert most <= max(before * 1024, _MOST_RESIDENT)
    data = client.app.state.settings.data  # type: ignore[attr-defined]
    assert [path for path in data.rglob("*") if path.is_file() and "sqlite" not in path.name] == []
