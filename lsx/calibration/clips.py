"""Raw videos to segments with one steady face: LatentSync's data workflow, every refusal with its reason.

A file is read at 25 fps, cut at shot changes, its shots into segments of 5 to 10 s, and a segment is kept where each of
its frames has a face that is large enough and does not jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenedetect import ContentDetector, FrameTimecode

from lsx.errors import MediaError, UsageError
from lsx.faces.shots import shot_thumbnail
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import FPS, VideoReader
from lsx.runtime.face_choice import Detector

__all__ = ["SILENCE", "Clip", "ClipOptions", "Segment", "find_files", "split", "survey"]

_SHOT_WIDTH = 320  # pixels; a shot change is seen as well as in the whole frame
SILENCE = 1e-3
"""Share of full scale, about -60 dB: sound that stays under it is silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """What a segment must be like."""

    min_seconds: float = 5.0
    """Shortest segment."""
    max_seconds: float = 10.0
    """Longest segment; at least twice the shortest, so that every longer shot can be cut into such."""
    min_face: int = 96
    """Lowest height of the face's box in pixels, in every frame."""
    max_jump: float = 0.5
    """Furthest that a face may move from one frame to the next, in heights of its box."""

    def __post_init__(self) -> None:
        if not self.min_seconds >= 1 or not self.max_seconds >= 2 * self.min_seconds:
            raise UsageError(
                f"segments of {self.min_seconds:g} to {self.max_seconds:g} s: the shortest is 1 s, and the longest at "
                "least twice the shortest"
            )
        if self.min_face < 16 or not self.max_jump > 0:
            raise UsageError(f"min_face is {self.min_face}, max_jump {self.max_jump:g}; give 16 pixels or more, over 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Frames start..stop at 25 fps; `reason` says why it was dropped, None where it was kept."""

    start: int
    stop: int
    reason: str | None
    face: int = 0
    """Median height of the face's box in pixels."""
    points: tuple[tuple[float, ...], ...] = ()
    """Six numbers a frame, brow, brow and nose, where it was kept."""

    def points_array(self) -> NDArray[np.float64]:
        """[frames, 3, 2]."""
        return np.array(self.points, dtype=np.float64).reshape(-1, 3, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What happened to one file; `reason` says why the whole file was skipped."""

    name: str
    sha256: str
    seconds: float
    reason: str | None
    segments: tuple[Segment, ...] = ()

    @property
    def kept(self) -> tuple[Segment, ...]:
        """The segments that were kept."""
        return tuple(segment for segment in self.segments if segment.reason is None)

    def as_json(self) -> dict[str, Any]:
        """The fields as the cache of a survey keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Clip:
        """The reverse of `as_json`."""
        segments = tuple(
            Segment(**(s | {"points": tuple(tuple(row) for row in s["points"])})) for s in content["segments"]
        )
        return cls(**(content | {"segments": segments}))


def find_files(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """(name, file) of every file in `paths`, files or folders searched whole, without hidden ones. Sorted by name.

    Raises UsageError for a path that does not exist, and when there is no file at all."""
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder. Give videos, or folders with videos")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            relative = file.relative_to(path if path.is_dir() else path.parent)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                name, number = str(relative), 2
                while name in files:
                    name, number = f"{relative} ({number})", number + 1
                files[name] = file
    if not files:
        raise UsageError(f"{', '.join(str(p) for p in paths)}: no files there. Give videos, or folders with videos")
    return sorted(files.items())


def survey(
    name: str,
    file: Path,
    sha256: str,
    detector: Detector,
    options: ClipOptions,
    progress: Callable[[float], None] | None = None,
) -> Clip:
    """Look through one file. Damage, silence and absent faces are reasons in what is returned, never errors.

    progress : called with the share of the file that was looked at.
    """
    try:
        reader = VideoReader(file)
        _check_sound(file)
        return Clip(
            name=name,
            sha256=sha256,
            seconds=reader.count / FPS,
            reason=None,
            segments=tuple(_segments(reader, detector, options, progress or (lambda _: None))),
        )
    except MediaError as error:
        reason = str(error).removeprefix(f"{file}: ")
        return Clip(name=name, sha256=sha256, seconds=0.0, reason=reason)


def _check_sound(file: Path) -> None:
    samples = SoundReader(file).samples()
    if np.abs(samples.astype(np.int32)).max() < SILENCE * 32768:
        raise MediaError(f"{file}: silent: its sound stays under -60 dB")


def _segments(
    reader: VideoReader,
    detector: Detector,
    options: ClipOptions,
    progress: Callable[[float], None],
) -> Iterator[Segment]:
    shots = _shots(reader)
    for first, last in shots:
        for start, stop in split(first, last, options):
            if (stop - start) / FPS < options.min_seconds:
                reason = f"{(stop - start) / FPS:.1f} s long, under {options.min_seconds:g} s"
                if len(shots) > 1:
                    reason = f"a shot of {reason}"
                yield Segment(start=start, stop=stop, reason=reason)
            else:
                yield _looked_at(reader, start, stop, detector, options)
            progress(stop / reader.count)


def _shots(reader: VideoReader) -> list[tuple[int, int]]:
    """Frames start..stop of every shot."""
    # A shot of under 0.6 s would be dropped anyway.
    detector = ContentDetector(min_scene_len=15)
    cuts: set[int] = set()
    for index, frame in enumerate(reader.frames()):
        time = FrameTimecode(index, fps=float(FPS))
        cuts.update(int(cut.frame_num) for cut in detector.process_frame(time, shot_thumbnail(frame, _SHOT_WIDTH)))
    edges = [0, *sorted(cuts), reader.count]
    return list(pairwise(edges))


def split(start: int, stop: int, options: ClipOptions) -> Iterator[tuple[int, int]]:
    """A shot in as few pieces of equal length as keep to the longest; a short one stays whole."""
    pieces = max(-(-(stop - start) // round(options.max_seconds * FPS)), 1)
    edges = np.linspace(start, stop, pieces + 1).round().astype(int).tolist()
    yield from pairwise(edges)


def _looked_at(reader: VideoReader, start: int, stop: int, detector: Detector, options: ClipOptions) -> Segment:
    """The segment with its faces, or with the reason of the first frame that spoils it."""
    points: list[tuple[float, ...]] = []
    heights: list[float] = []
    reason: str | None = None
    for index, frame in enumerate(reader.frames(start, stop), start):
        face = detector(frame)
        if face is None:
            reason = f"no face at {index / FPS:.2f} s" if not points else f"face lost at {index / FPS:.2f} s"
            break
        height = face.box[3] - face.box[1] if face.box is not None else 0.0
        if height < options.min_face:
            reason = f"face {height:.0f} px high at {index / FPS:.2f} s, under {options.min_face} px"
            break
        if points:
            moved = face.points.mean(0) - np.array(points[-1]).reshape(3, 2).mean(0)
            if np.hypot(*moved) > options.max_jump * height:
                reason = f"face jumps at {index / FPS:.2f} s"
                break
        points.append(tuple(float(n) for n in face.points.reshape(-1)))
        heights.append(height)
    middle = int(np.median(heights)) if heights else 0
    if reason is not None:
        return Segment(start=start, stop=stop, reason=reason, face=middle)
    return Segment(start=start, stop=stop, reason=None, face=middle, points=tuple(points))
