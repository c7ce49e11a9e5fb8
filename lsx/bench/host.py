"""The host's stages: detection with landmarks, alignment with pasting, decoding with encoding."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.bench.timing import repeated
from lsx.bundle.bundle import Bundle
from lsx.core.threaded_stages import Stage, StageChain, StageTimes
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.compositing import Compositor
from lsx.faces.detector import opened_detector
from lsx.faces.following import FaceFollower
from lsx.media.encoding import EncodeOptions
from lsx.media.video_reader import FPS, VideoReader
from lsx.media.video_writer import VideoWriter

__all__ = ["align_and_paste_seconds", "detect_seconds", "follow_seconds", "transcode_seconds"]

_POINTS = np.array([[-0.5, -0.45], [0.5, -0.43], [0.02, 0.45]])
"""Brow, brow and nose in units of the distance between the brows."""
_CRF = 18
_SCALE = "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
"""Colours converted as lsx does it, to come back as they were."""


def _median(work: Callable[[], object], repeat: int) -> float:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return statistics.median(repeated(work, repeat))
    finally:
        cv2.setNumThreads(threads)


def detect_seconds(bundle: Bundle, frame: NDArray[np.uint8], repeat: int = 20) -> float:
    """Median seconds to find the face and its landmarks in `frame` uint8 [H, W, 3], on one core."""
    with opened_detector(bundle) as detector:
        return _median(lambda: detector(frame), repeat)


def follow_seconds(bundle: Bundle, frame: NDArray[np.uint8], every: int, repeat: int = 20) -> float:
    """Seconds a frame to look for faces in every n-th, to follow them between, and to see cuts, on one core."""
    with opened_detector(bundle) as detector:

        def work() -> None:
            follower = FaceFollower(detector.faces, detector.followed, every)
            for _ in range(every):
                follower.follow(follower.look(frame))

        return _median(work, repeat) / every


def align_and_paste_seconds(resolution: int, brows: float, repeat: int = 20) -> float:
    """Median seconds to crop a face out of a 1080p frame and paste it back, on one core. brows : their distance, px."""
    y, x = np.mgrid[0:1080, 0:1920]
    frame = np.stack([(x // 3 + y // 5 + 40 * c) % 256 for c in range(3)], -1).astype(np.uint8)
    affine = Aligner(resolution).affine(_POINTS * brows + [960, 500])
    compositor = Compositor()
    face = crop_face(frame, affine, resolution)

    def work() -> None:
        crop_face(frame, affine, resolution)
        compositor.paste(frame, face, affine)

    return _median(work, repeat)


def transcode_seconds(clip: Path, frames: int = 100, repeat: int = 3) -> tuple[float, float | None]:
    """Median seconds a frame to decode a clip to RGB and encode it again, by lsx and, where it is installed, by ffmpeg.

    Both with x264's veryfast at the same quality, from the same frames, in turn. Raises MediaError.
    """
    reader, program = VideoReader(clip), shutil.which("ffmpeg")
    encode = EncodeOptions(codec="h264", preset="veryfast", crf=_CRF)
    frames = min(frames, reader.count)
    own: list[float] = []
    other: list[float] = []
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "lsx.mp4", Path(folder) / "ffmpeg.mp4"
        given = ["-nostdin", "-v", "error", "-y", "-r", str(FPS), "-i", str(clip), "-frames:v", str(frames), "-an"]
        codec = ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(_CRF), str(theirs)]
        for _ in range(repeat):
            started = time.perf_counter()
            decoded = StageChain([Stage("decode", lambda _: reader.frames(0, frames), 8)], StageTimes())
            size = (reader.width, reader.height)
            with closing(decoded), VideoWriter(ours, size, colours=reader.colours, encode=encode) as writer:
                for frame in decoded:
                    writer.write(frame)
            own.append(time.perf_counter() - started)
            if program is not None:
                started = time.perf_counter()
                command = [program, *given, "-vf", f"{_SCALE},format=rgb24,{_SCALE},format=yuv420p", *codec]
                subprocess.run(command, check=True)  # noqa: S603
                other.append(time.perf_counter() - started)
    return statistics.median(own) / frames, statistics.median(other) / frames if other else None
