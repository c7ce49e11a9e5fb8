"""tracks.json: every face of a video with its track, written as tracks end, and read back exactly."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from lsx.core.tensors import Frame
from lsx.errors import MediaError, OutputError
from lsx.faces.alignment import Aligner, Face, crop_face
from lsx.faces.sharpness import sharpness_of
from lsx.faces.tracks import LONGEST_GAP, TrackedFace, box_of
from lsx.media.given import VideoSource

__all__ = ["TRACKS_SCHEMA", "Track", "TrackWriter", "Tracks", "VideoIdentity"]

TRACKS_SCHEMA = 1
"""Raised when a field goes or changes its meaning; new ones come without."""

_JUDGED = 128  # pixels of the aligned face whose sharpness is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoIdentity:
    """What a video is known by."""

    name: str
    frames: int
    """Frames at 25 a second."""
    width: int
    height: int
    bytes: int
    """Size of the file; 0 of frames in memory."""

    @classmethod
    def of(cls, video: VideoSource) -> VideoIdentity:
        """The identity of an opened video."""
        path: Path | None = getattr(video, "path", None)
        return cls(
            name="frames in memory" if path is None else path.name,
            frames=video.count,
            width=video.width,
            height=video.height,
            bytes=0 if path is None else path.stat().st_size,
        )


@dataclass(slots=True, eq=False)
class Track:
    """One face through one shot: lists of one length, an entry a frame."""

    id: int
    shot: int
    frames: list[int] = field(default_factory=list)
    """The video's, at 25 a second, rising."""
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    """x0, y0, x1, y1 in pixels."""
    points: list[list[float]] = field(default_factory=list)
    """x, y of the left brow, the right brow and the nose, pixels."""
    scores: list[float] = field(default_factory=list)
    """The detector's, 0..1."""
    sharpness: list[float] = field(default_factory=list)
    """Variance of the Laplacian of the aligned face."""
    mouth_opening: list[float | None] = field(default_factory=list)
    """Distance between the inner lips, as a share of the eyes' distance; null where the face model does not say."""
    portrait: Frame = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    """The sharpest aligned face so far, uint8 [128, 128, 3]; not in the file."""
    sharpest: float = -1.0
    """Its sharpness."""

    @property
    def size(self) -> float:
        """Median height of the box, pixels."""
        return float(np.median([box[3] - box[1] for box in self.boxes]))

    def add(self, frame: int, face: Face, crop: Frame) -> None:
        """Append a frame's face, and its aligned crop uint8 [128, 128, 3]."""
        sharpness = sharpness_of(crop[None])
        if sharpness > self.sharpest:
            self.portrait, self.sharpest = crop, sharpness
        self.frames.append(frame)
        self.boxes.append(box_of(face))
        self.points.append(face.points.reshape(-1).tolist())
        self.scores.append(face.score)
        self.sharpness.append(round(sharpness, 2))
        opening = face.mouth_opening
        self.mouth_opening.append(None if opening is None or math.isnan(opening) else round(opening, 4))

    def faces(self) -> Iterator[tuple[int, TrackedFace]]:
        """Frame and face, as they were detected."""
        for frame, box, points, score, opening in zip(
            self.frames, self.boxes, self.points, self.scores, self.mouth_opening, strict=True
        ):
            face = Face(np.array(points).reshape(3, 2), box=box, score=score, mouth_opening=opening)
            yield frame, TrackedFace(self.id, face)

    def as_json(self) -> dict[str, Any]:
        """The file's entry."""
        return {
            "id": self.id,
            "shot": self.shot,
            "size": round(self.size, 1),  # for readers; the boxes say the same
            **{name: getattr(self, name) for name in _LISTS},
        }


_LISTS = ("frames", "boxes", "points", "scores", "sharpness", "mouth_opening")


class TrackWriter:
    """Writes the file track by track, each when it has ended: what is held is the shot under way.

    Use as a context manager: the file appears under its name when the block ends well.
    """

    def __init__(self, path: Path, video: VideoIdentity, faces: str) -> None:
        """faces : the bundle's face models, as named in its manifest."""
        self._path, self._partial = path, path.with_name(f".{path.name}.partial")
        self._living: dict[int, Track] = {}
        self.shots: list[int] = []
        """First frames of the shots so far."""
        self.count = 0
        """Tracks written."""
        try:
            self._file: TextIO = self._partial.open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        head = {"schema_version": TRACKS_SCHEMA, "video": _plain(video), "face_models": faces}
        self._file.write(json.dumps(head)[:-1] + ', "tracks": [')

    def add(self, number: int, frame: Frame, faces: Sequence[TrackedFace], *, new_shot: bool) -> list[Track]:
        """Take the faces of the video's frame `number`. Returns the tracks that ended with it."""
        if new_shot:
            ended = self._end(None)
            self.shots.append(number)
        else:
            ended = self._end(number - LONGEST_GAP - 1)
        for tracked in faces:
            track = self._living.setdefault(tracked.track, Track(tracked.track, len(self.shots) - 1))
            affine = Aligner(_JUDGED).affine(tracked.face.points)
            track.add(number, tracked.face, crop_face(frame, affine, _JUDGED))
        return ended

    def _end(self, before: int | None) -> list[Track]:
        """Write the tracks that were last seen before that frame, or all."""
        ended = [track for track in self._living.values() if before is None or track.frames[-1] < before]
        for track in ended:
            del self._living[track.id]
            self._file.write(("," if self.count else "") + "\n" + json.dumps(track.as_json()))
            self.count += 1
        return ended

    def finish(self) -> list[Track]:
        """Write what is left. Returns the tracks that ended with the video."""
        ended = self._end(None)
        self._file.write(f'\n], "shots": {json.dumps(self.shots)}}}\n')
        return ended

    def __enter__(self) -> TrackWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            self._file.close()
            if kind is None:
                self._partial.replace(self._path)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error
        finally:
            self._partial.unlink(missing_ok=True)


def _plain(video: VideoIdentity) -> dict[str, Any]:
    return {name: getattr(video, name) for name in VideoIdentity.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """A tracks.json, read."""

    path: Path
    video: VideoIdentity
    shots: frozenset[int]
    """First frames of shots."""
    by_frame: Mapping[int, list[TrackedFace]]
    """The faces of each frame that has any, largest first."""
    ids: frozenset[int]
    first: int = 0
    """The first frame that was looked at."""

    @classmethod
    def read(cls, path: Path) -> Tracks:
        """Read a file that `lsx faces` wrote. Raises MediaError."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema_version"] != TRACKS_SCHEMA:
                raise MediaError(
                    f"{path}: schema {content['schema_version']} is not {TRACKS_SCHEMA}; write it again: lsx faces"
                )
            by_frame: defaultdict[int, list[TrackedFace]] = defaultdict(list)
            ids = set()
            for entry in content["tracks"]:
                lists = {name: entry[name] for name in _LISTS}
                lists["boxes"] = [tuple(box) for box in lists["boxes"]]
                track = Track(id=int(entry["id"]), shot=int(entry["shot"]), **lists)
                ids.add(track.id)
                for frame, tracked in track.faces():
                    by_frame[frame].append(tracked)
            video, shots = VideoIdentity(**content["video"]), frozenset(content["shots"])
        except OSError as error:
            raise MediaError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MediaError(f"{path}: not a file of lsx faces, or damaged ({error}); write it again") from error
        return cls(path=path, video=video, shots=shots, by_frame=by_frame, ids=frozenset(ids))

    def check(self, video: VideoIdentity) -> None:
        """Raise MediaError where these are another video's faces."""
        for name in ("frames", "width", "height", "bytes"):
            ours, theirs = getattr(self.video, name), getattr(video, name)
            if ours != theirs:
                rate = " It has the faces of 25 frames a second, so it goes with --fps 25 alone." * (name == "frames")
                raise MediaError(
                    f"{self.path}: made of another video: {ours} {name}, and {video.name} has {theirs}. "
                    f"Write it again: lsx faces {video.name} -o {self.path.name}.{rate}"
                )
