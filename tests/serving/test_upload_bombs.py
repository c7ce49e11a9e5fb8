"""Uploads that are small and would be endless, huge, or names of other files: refused, and nothing is left."""

from __future__ import annotations

import io
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient

from lsx.serving import media_probe
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
    boxes = dict(_boxes(_small()))
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


def _small() -> bytes:
    return _repeated("mp4", 5, size=(64, 48))


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../video.mp4", _small())
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


_SCRIPTS = {
    "ffconcat": "ffconcat version 1.0\nfile beside.mp4\n",
    "ffconcat-above": "ffconcat version 1.0\nfile ../beside.mp4\n",
    "ffconcat-http": "ffconcat version 1.0\nfile 'SERVER/a.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nbeside.mp4\n#EXT-X-ENDLIST\n",
    "hls-above": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n../beside.mp4\n#EXT-X-ENDLIST\n",
    "hls-http": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nSERVER/a.mp4\n#EXT-X-ENDLIST\n",
    "hls-concat": "#EXTM3U\n#EXTINF:1,\nconcat:beside.mp4|beside.mp4\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video"><Representation id="1" '
    'bandwidth="9"><BaseURL>SERVER/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "m3u": "SERVER/a.mp3\nbeside.mp4\n",
    "smil": '<smil><body><video src="SERVER/a.mp4"/></body></smil>',
}
"""Scripts that name a video beside the upload, above it, and at SERVER: all of these are there."""

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


class _Recorded(ThreadingHTTPServer):
    """A server that has the video, and notes who asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        outer, video = self, _small()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(video)))
                self.end_headers()
                self.wfile.write(video)

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def recorded() -> Iterator[_Recorded]:
    server = _Recorded()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data = tmp_path_factory.mktemp("data")
    migrate(f"sqlite:///{data / 'jobs.sqlite'}")
    (data / "incoming").mkdir()
    for folder in (data, data / "incoming"):
        (folder / "beside.mp4").write_bytes(_small())
    settings = ServeSettings(data=data, min_free_bytes=0, max_seconds=60)
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        yield client


_TOLD = """
import atexit, pathlib, re, sys
from lsx.serving import media_probe
status, told = pathlib.Path("/proc/self/status"), pathlib.Path(sys.argv[1])
atexit.register(lambda: told.write_text(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]))
media_probe.main()
"""


@pytest.fixture
def peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The probe's most resident bytes, by its own word: the system's of a child begins with those of its parent."""
    told = tmp_path / "peak"
    monkeypatch.setattr(media_probe, "_COMMAND", (sys.executable, "-c", _TOLD, str(told)))
    return lambda: int(told.read_text()) * 1024


@pytest.mark.parametrize("bomb", _BOMBS)
def test_a_bomb_is_refused(client: TestClient, recorded: _Recorded, bomb: str, peak: Callable[[], int]) -> None:
    """With a code, within the probe's limits, by name of what is wrong; no file and no row is left."""
    content = _BOMBS[bomb]().replace(b"SERVER", b"http://127.0.0.1:%d" % recorded.server_port)
    assert len(content) < 16 << 20
    answer = client.post("/v1/assets", params={"filename": "../../etc/video.mp4"}, content=content)
    assert (answer.status_code, answer.json()["code"]) == (415, "unreadable_media"), answer.text
    assert "to open" not in answer.json()["detail"], "it was ended by the probe's limits, and not refused"
    assert peak() <= _MOST_RESIDENT
    assert recorded.asked == []
    data = client.app.state.settings.data  # type: ignore[attr-defined]
    left = [path.name for path in data.rglob("*") if path.is_file() and "sqlite" not in path.name]
    assert left == ["beside.mp4"] * 2


def test_an_attachment_is_not_looked_at(client: TestClient) -> None:
    """A font beside the picture, as many films have one: it is taken as the video that it is."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.add_attachment("../../font.ttf", "font/ttf", bytes(1000))
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        output.mux(stream.encode())
    answer = client.post("/v1/assets", content=file.getvalue())
    assert (answer.status_code, answer.json()["kind"], answer.json()["width"]) == (201, "video", 64)
    data = client.app.state.settings.data  # type: ignore[attr-defined]
    assert list(data.rglob("*.ttf")) == []
    (data / "store" / "uploads" / answer.json()["id"]).unlink()
