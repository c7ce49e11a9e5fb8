"""Interlaced video: a whole frame for each frame, and what is not interlaced stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from lsx.media.video_reader import VideoReader


def _field_clip(path: Path, *, interlaced: bool, codec: str) -> list[list[np.ndarray[Any, Any]]]:
    """A bar that moves between the two fields of each frame; what was seen at the times of both."""
    seen: list[list[np.ndarray[Any, Any]]] = [[], []]
    with av.open(str(path), "w") as out:
        options = {"x264-params": "tff=1:interlaced=1", "crf": "1"} if codec == "libx264" and interlaced else {}
        stream: Any = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.bit_rate = 8_000_000
        if interlaced and codec == "mpeg2video":
            stream.codec_context.flags |= 0x20040000  # interlaced DCT and motion estimation
        for index in range(20):
            fields = [np.full((96, 128), 40, np.uint8) for _ in range(2)]
            for half, field in enumerate(fields):
                at = 2 * (2 * index + half)
                field[:, at : at + 20] = 200
            picture = fields[0].copy()
            for one, field in zip(seen, fields, strict=True):
                one.append(field)
            if interlaced:
                picture[1::2] = fields[1][1::2]
            frame = av.VideoFrame.from_ndarray(np.repeat(picture[..., None], 3, 2), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return seen


def _combing(frame: np.ndarray[Any, Any]) -> float:
    """How far lines are from the mean of their neighbours."""
    levels = frame[..., 1].astype(float)
    return float(np.abs(levels[1:-1] - (levels[:-2] + levels[2:]) / 2).mean())


def test_interlaced_video_is_deinterlaced_a_frame_for_a_frame(tmp_path: Path) -> None:
    seen = _field_clip(tmp_path / "fields.mp4", interlaced=True, codec="libx264")
    _field_clip(tmp_path / "whole.mp4", interlaced=False, codec="libx264")
    with av.open(str(tmp_path / "fields.mp4")) as container:
        raw = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    reader = VideoReader(tmp_path / "fields.mp4")
    frames = list(reader.frames())
    assert len(frames) == reader.count == 20
    assert max(_combing(frame) for frame in frames[1:-1]) < 0.25 * min(_combing(frame) for frame in raw[1:-1])
    # Every frame is of one field's time, the same for all, where the file has half of each.
    apart = [[np.abs(f[..., 1] - w.astype(float)).mean() for f, w in zip(frames, one, strict=True)] for one in seen]
    assert min(max(one[1:-1]) for one in apart) < 1 < min(min(one[1:-1]) for one in sorted(apart, key=max)[1:])
    assert [f.tobytes() for f in reader.frames(5, 12)] == [f.tobytes() for f in frames[5:12]] or _near(
        list(reader.frames(5, 12)), frames[5:12]
    )
    assert len(list(reader.at(np.arange(20)[::-1]))) == 20
    with av.open(str(tmp_path / "whole.mp4")) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))


def _near(some: list[Any], others: list[Any]) -> bool:
    """Equal but for the first and last, whose neighbours the filter does not see."""
    pairs = list(zip(some, others, strict=True))[1:-1]
    return all(np.abs(a.astype(int) - b).mean() < 1 for a, b in pairs)
