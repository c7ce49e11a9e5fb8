"""A run's faces: what is looked for in a frame, on any thread, and which face is then taken, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lsx.core.footage import FootageOptions
from lsx.core.speaker_rule import SpeakerRule
from lsx.core.tensors import Frame
from lsx.errors import FaceNotFound, UsageError
from lsx.faces.alignment import Face
from lsx.faces.detector import FaceDetector
from lsx.faces.following import FaceFollower, SeenFrame
from lsx.faces.speaker import SpeakerChoice, SpeakerChooser, track_in_box
from lsx.faces.track_file import Tracks, VideoIdentity
from lsx.faces.tracks import TrackedFace, box_of
from lsx.media.video_reader import FPS

__all__ = ["Detector", "FaceChoice", "GivenFaces", "LiveFaces", "RecordedFaces", "faces_for", "given_faces"]

Detector = Callable[[Frame], Face | None]
"""A frame uint8 [H, W, 3] RGB to its face, or None. Called once for each source frame."""


class FaceChoice(Protocol):
    """Where the faces of a run come from."""

    advice: str
    """What a run that found no face says besides."""

    def look(self, frame: Frame) -> Any:
        """What is seen in a frame. Called once for each source frame, from any thread."""

    def choose(self, source: int, seen: Any, width: int) -> Face | None:
        """The face of source frame `source`, `width` pixels wide. Called in order, from one thread."""

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """Whom it took, and from which frame on."""


class GivenFaces:
    """One face a frame, from a caller's own detector."""

    advice = ""
    choices: tuple[SpeakerChoice, ...] = ()

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def look(self, frame: Frame) -> Face | None:
        """The detector's answer."""
        return self._detector(frame)

    def choose(self, _: int, seen: Face | None, __: int) -> Face | None:
        """The same."""
        return seen


@dataclass(slots=True, eq=False)
class LiveFaces:
    """All faces of a frame, followed from frame to frame, and one of them chosen by a rule."""

    follower: FaceFollower
    rule: SpeakerRule
    advice: str = ""
    _chooser: SpeakerChooser = field(init=False)

    def __post_init__(self) -> None:
        self._chooser = SpeakerChooser(self.rule)

    def look(self, frame: Frame) -> SeenFrame:
        """Faces, and the frame in little."""
        return self.follower.look(frame)

    def choose(self, source: int, seen: SeenFrame, width: int) -> Face | None:
        """The rule's face."""
        tracked, new_shot = self.follower.follow(seen)
        if self._chooser.rule.box is not None:
            self._chooser.rule = _resolved(self._chooser.rule, source, tracked)
        return self._chooser.choose(source, tracked, width, new_shot=new_shot)

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """Whom it took."""
        return tuple(self._chooser.choices)


@dataclass(slots=True, eq=False)
class RecordedFaces:
    """The faces of a tracks.json; nothing is looked for."""

    tracks: Tracks
    rule: SpeakerRule
    advice: str = ". Its faces came from a file, and the chosen ones may be in none of these frames"
    _chooser: SpeakerChooser = field(init=False)
    _latest: int = -1

    def __post_init__(self) -> None:
        rule = self.rule
        if rule.box is not None:
            frame = round(rule.second * FPS)
            rule = _resolved(rule, frame, self.tracks.by_frame.get(frame, []))
        unknown = sorted(set(rule.tracks) - self.tracks.ids)
        if unknown:
            raise UsageError(f"speaker: {self.tracks.path} has no track {unknown[0]}; it has {_spans(self.tracks.ids)}")
        self._chooser = SpeakerChooser(rule)

    def look(self, _: Frame) -> None:
        """Nothing: it is known."""

    def choose(self, source: int, _: None, width: int) -> Face | None:
        """The rule's face. A shot also begins where its first frame was left out."""
        new_shot = any(frame in self.tracks.shots for frame in range(self._latest + 1, source + 1))
        self._latest = source
        return self._chooser.choose(source, self.tracks.by_frame.get(source, []), width, new_shot=new_shot)

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """Whom it took."""
        return tuple(self._chooser.choices)


def faces_for(footage: FootageOptions, detector: FaceDetector, video: VideoIdentity | None = None) -> FaceChoice:
    """The faces of a run, as its options say. Raises UsageError, MediaError, FaceNotFound.

    video : what the run plays, to which `footage.faces` must belong; None where nothing is known of it.
    """
    if footage.faces is None:
        return LiveFaces(FaceFollower(detector.faces), footage.speaker_rule)
    tracks = Tracks.read(footage.faces)
    if video is not None:
        tracks.check(video)
    return RecordedFaces(tracks, footage.speaker_rule)


def given_faces(detector: Detector, footage: FootageOptions) -> GivenFaces:
    """The faces of a caller's own detector. Raises UsageError where the options choose, too."""
    for name in ("speaker", "faces"):
        if getattr(footage, name) != FootageOptions.model_fields[name].default:
            raise UsageError(f"{name} and detector both say whose mouth moves; leave one out")
    return GivenFaces(detector)


def _resolved(rule: SpeakerRule, frame: int, faces: Sequence[TrackedFace]) -> SpeakerRule:
    """The rule with the track of the face in its box. Raises FaceNotFound."""
    track = None if rule.box is None else track_in_box(rule.box, faces)
    if track is None:
        boxes = "; ".join("{:.0f},{:.0f},{:.0f},{:.0f}".format(*_sized(box_of(one.face))) for one in faces)
        there = f"Faces there (x, y, width, height): {boxes or 'none'}"
        raise FaceNotFound(f"speaker: no face lies in the box at {frame / FPS:.2f} s. {there}")
    return SpeakerRule(tracks=(track,))


def _sized(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def _spans(numbers: Iterable[int]) -> str:
    """`1..9` of consecutive numbers, the numbers themselves otherwise."""
    known = sorted(numbers)
    if len(known) > 2 and known[-1] - known[0] == len(known) - 1:
        return f"{known[0]}..{known[-1]}"
    return ", ".join(map(str, known)) or "none"
