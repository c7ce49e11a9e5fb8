"""Every face of a video, followed through its shots: to tracks.json and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsx.core.atomic_files import write_whole
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import in_order
from lsx.errors import FaceNotFound, OutputError
from lsx.faces.contact_sheet import captioned, png_of, sheet_of
from lsx.faces.detector import FaceDetector
from lsx.faces.following import FaceFollower, SeenFrame
from lsx.faces.track_file import Track, TrackWriter, VideoIdentity
from lsx.faces.tracks import TrackedFace
from lsx.media.video_reader import FPS, VideoReader

__all__ = ["FaceSurvey", "TrackSummary", "survey_faces"]

_COLUMNS = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackSummary:
    """A track in short."""

    id: int
    shot: int
    first: int
    """Frame of the video, at 25 a second."""
    last: int
    frames: int
    """Frames in which it was seen."""
    size: float
    """Median height of its box, pixels."""
    sharpness: float
    """Median."""
    portrait: Frame
    """Its sharpest aligned face, uint8 [128, 128, 3]."""

    @classmethod
    def of(cls, track: Track) -> TrackSummary:
        """The summary of a track that has ended."""
        return cls(
            id=track.id,
            shot=track.shot,
            first=track.frames[0],
            last=track.frames[-1],
            frames=len(track.frames),
            size=track.size,
            sharpness=float(np.median(track.sharpness)),
            portrait=track.portrait,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceSurvey:
    """What was found."""

    frames: int
    shots: int
    tracks: tuple[TrackSummary, ...]
    """Tracks by number."""


def survey_faces(
    video: VideoReader,
    detector: FaceDetector,
    family: str,
    output: Path,
    sheet: Path | None = None,
    *,
    threads: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> FaceSurvey:
    """Write `output` (tracks.json) and, where given, `sheet` (PNG): each appears when it is whole.

    family : the bundle's face models, as named in its manifest; threads : on which frames are looked at; progress :
    called with the frames that are done. Raises MediaError, OutputError, and FaceNotFound where there is no face.
    """
    ended: list[TrackSummary] = []
    with TrackWriter(output, VideoIdentity.of(video), family) as writer:
        for number, frame, faces, new_shot in _followed(video, detector, threads):
            ended += map(TrackSummary.of, writer.add(number, frame, faces, new_shot=new_shot))
            progress(number + 1)
        ended += map(TrackSummary.of, writer.finish())
        if not ended:
            raise FaceNotFound(
                f"{video.path}: no face was found in any frame. Check that the picture is upright and the face at "
                "least 40 pixels high"
            )
        ended.sort(key=lambda track: track.id)
        if sheet is not None:
            _write_sheet(sheet, ended)
    return FaceSurvey(frames=video.count, shots=len(writer.shots), tracks=tuple(ended))


def _followed(
    video: VideoReader, detector: FaceDetector, threads: int
) -> Iterator[tuple[int, Frame, list[TrackedFace], bool]]:
    """Number, frame, its faces with their tracks, and whether a shot begins with it."""

    follower = FaceFollower(detector.faces)

    def look(item: tuple[int, Frame]) -> tuple[int, Frame, SeenFrame]:
        return (*item, follower.look(item[1]))

    for number, frame, seen in in_order(look, enumerate(video.frames()), threads):
        yield number, frame, *follower.follow(seen)


def _write_sheet(path: Path, tracks: list[TrackSummary]) -> None:
    tiles = [
        captioned(
            track.portrait,
            f"{track.id}",
            f"shot {track.shot}, {track.first / FPS:.1f} to {(track.last + 1) / FPS:.1f} s",
            f"{track.size:.0f} px",
        )
        for track in tracks
    ]
    try:
        write_whole(path, png_of(sheet_of(tiles, _COLUMNS)))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
