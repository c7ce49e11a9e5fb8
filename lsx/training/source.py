"""One video to its segments, faces and sound encoded, in a tar file and a list that wait for the shards.

Runs in any process of any machine that sees the files; what it writes depends on the video and the options alone.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lsx.bundle.bundle import Bundle
from lsx.calibration.clips import Segment, survey
from lsx.core.atomic_files import write_whole
from lsx.core.tensors import Frame
from lsx.errors import EngineError, MediaError, OutputError
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.detector import FaceDetector, opened_detector
from lsx.faces.sharpness import sharpness_of
from lsx.media.video_reader import FPS, VideoReader
from lsx.training.data_index import SegmentMeta, SegmentRow
from lsx.training.prepare_options import PrepareOptions
from lsx.training.segment_quality import is_silent, outside_share, stillness_of
from lsx.training.sound_offset import VideoSound, corrected
from lsx.training.tar_shard import EncodedSegment, TarShard, encode_segment

if TYPE_CHECKING:
    from lsx.metrics.syncnet import SyncNet

__all__ = ["DroppedPiece", "SourceResult", "SourceTask", "prepare_source"]

_STILL = 0.5  # levels
_MISSING = 0.2  # seconds of sound that may be zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTask:
    """A video that is to be prepared."""

    name: str
    file: Path
    sha256: str
    work: Path
    """Folder for the result, which every machine sees."""
    options: PrepareOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedPiece:
    """Seconds start..stop of a video that are left out."""

    start: float
    stop: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceResult:
    """What became of a video. Its rows' shards are tar files in `folder`."""

    folder: Path
    rows: tuple[SegmentRow, ...]
    dropped: tuple[DroppedPiece, ...]

    @classmethod
    def of(cls, work: Path, sha256: str) -> SourceResult | None:
        """The result that a run left in `work`, None where there is none."""
        file = work / f"{sha256}.json"
        if not file.is_file():
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            folder=work,
            rows=tuple(SegmentRow(**row) for row in content["rows"]),
            dropped=tuple(DroppedPiece(**piece) for piece in content["dropped"]),
        )


def prepare_source(task: SourceTask, progress: Callable[[float], None] | None = None) -> None:
    """Prepare one video: `SourceResult.of` finds what became of it. Whatever is wrong with the video is a reason there.

    Raises OutputError, EngineError, BundleError, CheckpointError: what would stop every video.
    """
    _detector(task.options.bundle), _syncnet(task.options.syncnet)  # their own errors are not the video's
    rows: list[SegmentRow] = []
    dropped: list[DroppedPiece] = []
    # Another attempt may still write: a machine that was taken for lost.
    temporary = task.work / f".{task.sha256}-{socket.gethostname()}-{os.getpid()}.tar"
    try:
        tar = TarShard(temporary)
        try:
            for piece in _pieces(task, tar, progress):
                if isinstance(piece, SegmentRow):
                    rows.append(piece)
                else:
                    dropped.append(piece)
        finally:
            tar.close()
        name = f"{task.sha256}.tar"
        if rows:
            temporary.replace(task.work / name)
        content = {"rows": [asdict(row) | {"shard": name} for row in rows], "dropped": [asdict(p) for p in dropped]}
        write_whole(task.work / f"{task.sha256}.json", json.dumps(content).encode())
    except OSError as error:
        raise OutputError(f"{task.work}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


_opened = ExitStack()
"""Keeps detectors open for as long as the process lives: its next video needs them again."""


@lru_cache(maxsize=1)
def _detector(bundle: Path) -> FaceDetector:
    return _opened.enter_context(opened_detector(Bundle.open(bundle)))


@lru_cache(maxsize=1)
def _syncnet(folder: Path | None) -> SyncNet | None:
    if folder is None:
        return None
    from lsx.metrics.syncnet import SyncNet  # with it comes PyTorch

    return SyncNet(folder)


def _pieces(
    task: SourceTask, tar: TarShard, progress: Callable[[float], None] | None
) -> Iterator[SegmentRow | DroppedPiece]:
    """A row for each segment that was written to `tar`, a dropped piece for everything else of the video."""
    detector, seconds = _detector(task.options.bundle), 0.0
    try:
        clip = survey(task.name, task.file, task.sha256, detector, task.options.clips(), progress)
        seconds = clip.seconds
        if clip.reason is not None:
            yield DroppedPiece(start=0.0, stop=0.0, reason=clip.reason)
            return
        video = VideoReader(task.file)
        sound = VideoSound.of(video)
        for segment in clip.segments:
            found = segment.reason or _segment(task, video, sound, segment)
            if isinstance(found, str):
                yield DroppedPiece(start=segment.start / FPS, stop=segment.stop / FPS, reason=found)
            else:
                yield tar.add(found)
    except (EngineError, OSError):
        raise
    except MediaError as error:
        yield DroppedPiece(start=0.0, stop=seconds, reason=str(error).removeprefix(f"{task.file}: "))
    except Exception as error:  # what libraries raise over a damaged picture is of no one class
        first = (str(error).strip() or "no message").splitlines()[0]
        yield DroppedPiece(start=0.0, stop=seconds, reason=f"could not be processed: {type(error).__name__}: {first}")


def _segment(task: SourceTask, video: VideoReader, sound: VideoSound, segment: Segment) -> EncodedSegment | str:
    """The segment encoded, or why it is dropped."""
    options, syncnet = task.options, _syncnet(task.options.syncnet)
    faces, outside = _aligned(video, segment, options.resolution)
    sharpness = round(sharpness_of(faces), 2)
    samples, missing = sound.under(segment.start, segment.stop)
    reason = _unfit_faces(faces, outside, sharpness, options)
    if reason is None and is_silent(samples):
        reason = "silent: its sound stays under -60 dB"
    offset, confidence = None, None
    if reason is None and syncnet is not None:
        judged = corrected(syncnet, faces, sound, segment.start, options.min_confidence)
        samples, missing, offset, confidence = judged.samples, judged.missing, judged.frames, judged.confidence
        reason = judged.reason
    if reason is None and missing > _MISSING:
        reason = f"{missing:.1f} s of it have no sound"
    if reason is not None:
        return reason
    meta = SegmentMeta(
        source=task.name,
        sha256=task.sha256,
        start=segment.start,
        face_height=float(segment.face),
        sharpness=sharpness,
        sync_offset=offset,
        sync_confidence=confidence,
    )
    key = f"{task.sha256[:16]}-{segment.start:07d}"
    return encode_segment(key, faces, samples, meta, resolution=options.resolution, quality=options.quality)


def _unfit_faces(faces: Frame, outside: float, sharpness: float, options: PrepareOptions) -> str | None:
    """Why these faces are not fit to train on, None where they are."""
    if outside > options.max_outside:
        return f"{100 * outside:.0f} % of the face outside the picture, over {100 * options.max_outside:.0f} %"
    if sharpness < options.min_sharpness:
        return f"blurred: sharpness {sharpness:.1f}, under {options.min_sharpness:g}"
    if stillness_of(faces) < _STILL:
        return "the mouth does not move: a still picture"
    return None


def _aligned(video: VideoReader, segment: Segment, resolution: int) -> tuple[Frame, float]:
    """Faces as a run aligns them, uint8 [n, R, R, 3], and the largest share of one outside its frame."""
    aligner = Aligner(resolution)
    affines = [aligner.affine(points) for points in segment.points_array()]
    frames = video.frames(segment.start, segment.stop)
    faces = np.stack([crop_face(f, affine, resolution) for f, affine in zip(frames, affines, strict=True)])
    return faces, outside_share(affines, (video.height, video.width), resolution)
