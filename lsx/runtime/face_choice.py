"""A run's faces: what is looked for in a frame, on any thread, and which face is then taken, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from lsx.core.clock import FPS, MODEL_CLOCK, FrameClock
from lsx.core.footage import FootageOptions
from lsx.core.speaker_rule import SpeakerRule
from lsx.core.tensors import Frame
from lsx.errors import FaceNotFound, UsageError
from lsx.faces.alignment import Face
from lsx.faces.detector import FaceDetector
from lsx.faces.following import FaceFollower, SeenFrame
from lsx.faces.seen_history import SeenHistory, seen_frames
from lsx.faces.speaker import ActiveTrack, SpeakerChoice, chooser_for, track_in_box
from lsx.faces.track_file import Tracks, VideoIdentity
from lsx.faces.tracks import TrackedFace, box_of
from lsx.media.given import VideoSource
from lsx.runtime.kept_look import Look
from lsx.runtime.speaking_faces import Looked, heard_in, looked_at, speaking
from lsx.runtime.sync_agreement import SyncJudge, agreements
from lsx.runtime.timeline import Timeline

__all__ = [
    "Detector",
    "FaceChoice",
    "GivenFaces",
    "LiveFaces",
    "RecordedFaces",
    "Slot",
    "Unseen",
    "faces_for",
    "given_faces",
]

_MARGIN = 8 * FPS  # frames beyond a run's last that are looked at too: they tell who spoke before them

Detector = Callable[[Frame], Face | None]
"""A frame uint8 [H, W, 3] RGB to its face, or None. Called once for each source frame."""


class Slot(NamedTuple):
    """The place of a face in a run, from frame to frame."""

    rule: int
    """Number of the rule that chose it."""
    place: int
    """0, or more where the rule chooses several at once."""


class FaceChoice(Protocol):
    """The source of a run's faces."""

    advice: str
    """What a run that found no face says besides."""

    def look(self, frame: Frame) -> Any:
        """What is seen in a frame. Called once for each source frame, from any thread."""

    def choose(self, source: int, seen: Any, width: int) -> dict[Slot, Face]:
        """The faces of source frame `source`, `width` pixels wide. Called in order, from one thread."""

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """The faces that it took, and the frames from which on it did."""

    def keep_history(self, marks: Collection[int]) -> None:
        """Keep from now on what is seen. marks : source frames after which the run may be left."""

    def history(self, last: int) -> dict[str, NDArray[Any]]:
        """What was seen up to the source frame `last`, and was not given before: arrays by name."""

    def go_on_after(self, history: Sequence[Mapping[str, NDArray[Any]]]) -> dict[int, Any]:
        """What an earlier run saw, by source frame, all of which is still to be given to `choose`.

        Frames are looked at from here on as if these had been.
        """


class Unseen:
    """A choice that sees nothing in frames, or nothing that would have to be kept."""

    def keep_history(self, marks: Collection[int]) -> None:
        """There is none."""

    def history(self, last: int) -> dict[str, NDArray[Any]]:
        """There is none."""
        del last
        return {}

    def go_on_after(self, history: Sequence[Mapping[str, NDArray[Any]]]) -> dict[int, Any]:
        """There is none."""
        del history
        return {}


class GivenFaces(Unseen):
    """One face a frame, from a caller's own detector."""

    advice = ""
    choices: tuple[SpeakerChoice, ...] = ()

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def look(self, frame: Frame) -> Face | None:
        """The detector's answer."""
        return self._detector(frame)

    def choose(self, _: int, seen: Face | None, __: int) -> dict[Slot, Face]:
        """The same."""
        return {} if seen is None else {Slot(0, 0): seen}


class _Choosers:
    """One for each rule."""

    def __init__(self, rules: Sequence[SpeakerRule], active: ActiveTrack = lambda _: 0) -> None:
        self._each = [chooser_for(rule, active) for rule in rules]

    def choose(self, source: int, faces: list[TrackedFace], width: int, *, new_shot: bool) -> dict[Slot, Face]:
        return {
            Slot(rule, place): face
            for rule, chooser in enumerate(self._each)
            for place, face in chooser.choose(source, faces, width, new_shot=new_shot).items()
        }

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        every = (choice for chooser in self._each for choice in chooser.choices)
        return tuple(sorted(dict.fromkeys(every), key=lambda choice: (choice.frame, choice.track)))


class LiveFaces:
    """All faces of a frame, followed from frame to frame, and some of them chosen by rules."""

    advice = ""

    def __init__(self, follower: FaceFollower, rules: Sequence[SpeakerRule], clock: FrameClock = MODEL_CLOCK) -> None:
        self._follower, self._rules, self._clock = follower, rules, clock
        self._choosers: _Choosers | None = None
        self._history: SeenHistory | None = None

    def look(self, frame: Frame) -> SeenFrame:
        """Faces, and the frame in little."""
        return self._follower.look(frame)

    def choose(self, source: int, seen: SeenFrame, width: int) -> dict[Slot, Face]:
        """The rules' faces. A box is one of the first frame's faces."""
        tracked, new_shot = self._follower.follow(seen)
        if self._history is not None:
            self._history.add(source, replace(seen, new_shot=new_shot))
        if self._choosers is None:
            self._choosers = _Choosers([_resolved(rule, self._clock.seconds(source), tracked) for rule in self._rules])
        return self._choosers.choose(source, tracked, width, new_shot=new_shot)

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """The faces that it took."""
        return () if self._choosers is None else self._choosers.choices

    def keep_history(self, marks: Collection[int]) -> None:
        """Keep from now on what is seen."""
        self._history = SeenHistory(marks)

    def history(self, last: int) -> dict[str, NDArray[Any]]:
        """What was seen up to the source frame `last`, and was not given before."""
        return {} if self._history is None else self._history.taken(last)

    def go_on_after(self, history: Sequence[Mapping[str, NDArray[Any]]]) -> dict[int, SeenFrame]:
        """What an earlier run saw, by source frame."""
        frames = {source: seen for arrays in history for source, seen in seen_frames(arrays)}
        self._follower.go_on_after(list(frames.values()))
        return frames


class RecordedFaces(Unseen):
    """The faces of a tracks.json, or of a look at the whole video before; nothing is looked for."""

    advice = ". Its faces were looked for before, and the chosen ones may be in none of these frames"

    def __init__(
        self,
        tracks: Tracks,
        rules: Sequence[SpeakerRule],
        clock: FrameClock = MODEL_CLOCK,
        active: ActiveTrack = lambda _: 0,
    ) -> None:
        """active : who speaks, where a rule asks for that.

        Raises UsageError for a track that there is not, FaceNotFound for a box without a face.
        """
        resolved = []
        for rule in rules:
            frame = max(clock.nearest(rule.second, tracks.video.frames), tracks.first)
            resolved.append(_resolved(rule, clock.seconds(frame), tracks.by_frame.get(frame, [])))
            unknown = sorted(set(resolved[-1].tracks) - tracks.ids)
            if unknown:
                raise UsageError(f"speaker: {tracks.path} has no track {unknown[0]}; it has {_spans(tracks.ids)}")
        self._tracks, self._choosers, self._latest = tracks, _Choosers(resolved, active), tracks.first - 1

    def look(self, _: Frame) -> None:
        """Nothing: it is known."""

    def choose(self, source: int, _: None, width: int) -> dict[Slot, Face]:
        """The rules' faces. A shot also begins where its first frame was left out."""
        new_shot = any(frame in self._tracks.shots for frame in range(self._latest + 1, source + 1))
        self._latest = source
        return self._choosers.choose(source, self._tracks.by_frame.get(source, []), width, new_shot=new_shot)

    @property
    def choices(self) -> tuple[SpeakerChoice, ...]:
        """The faces that it took."""
        return self._choosers.choices


def faces_for(
    footage: FootageOptions,
    detector: FaceDetector,
    video: VideoSource | None,
    timeline: Timeline,
    looked: Looked = lambda _, __: None,
    judge: Callable[[], AbstractContextManager[SyncJudge | None]] = nullcontext,
    kept: Path | None = None,
) -> FaceChoice:
    """The faces of a run, as its options say. Raises UsageError, MediaError, FaceNotFound.

    Who speaks is known when all frames were looked at: where a rule asks for that they are, before the run.

    video : what the run plays, to which `footage.faces` must belong; None where nothing is known of it.
    timeline : which of its frames, and when. looked : called while all frames are looked at. judge : opens
    StableSyncNet, which is asked besides, where there is one. kept : a file that has the look at all frames or gets it.
    """
    rules = footage.speaker_rules
    asks = any(rule.place == "active" for rule in rules)
    if asks and video is None:
        raise UsageError(
            "speaker is active: it listens to the video's own sound, which a stream's frames lack; use run"
        )
    if not asks or video is None:
        if footage.faces is None:
            return LiveFaces(_follower(footage, detector), rules, timeline.clock)
        return RecordedFaces(_recorded(footage.faces, video), rules, timeline.clock)
    frames = timeline.first_times(_MARGIN)
    sound = heard_in(video, int(frames[0]) if footage.faces is None else 0)  # first: a video without is refused at once
    look = None if kept is None else Look.read(kept, VideoIdentity.of(video))
    if look is None:
        if footage.faces is None:
            tracks = looked_at(video, frames, _follower(footage, detector), looked)
        else:
            tracks = _recorded(footage.faces, video)
        with judge() as asked:
            look = Look(tracks, None if asked is None else agreements(tracks, video, sound.samples(), asked, looked))
        if kept is not None:
            look.write(kept)
    return RecordedFaces(look.tracks, rules, timeline.clock, speaking(look.tracks, video.clock, sound, look.agreements))


def _recorded(file: Path, video: VideoSource | None) -> Tracks:
    tracks = Tracks.read(file)
    if video is not None:
        tracks.check(VideoIdentity.of(video))
    return tracks


def _follower(footage: FootageOptions, detector: FaceDetector) -> FaceFollower:
    return FaceFollower(detector.faces, detector.followed, footage.detect_every)


def given_faces(detector: Detector, footage: FootageOptions) -> GivenFaces:
    """The faces of a caller's own detector. Raises UsageError where the options choose, too."""
    for name in ("speaker", "faces", "detect_every"):
        if getattr(footage, name) != FootageOptions.model_fields[name].default:
            raise UsageError(f"{name} and detector both say whose mouth moves; leave one out")
    return GivenFaces(detector)


def _resolved(rule: SpeakerRule, seconds: Fraction, faces: Sequence[TrackedFace]) -> SpeakerRule:
    """The rule, with the track of the face in its box where it has one. Raises FaceNotFound."""
    if rule.box is None:
        return rule
    track = track_in_box(rule.box, faces)
    if track is None:
        boxes = "; ".join("{:.0f},{:.0f},{:.0f},{:.0f}".format(*_sized(box_of(one.face))) for one in faces)
        there = f"Faces there (x, y, width, height): {boxes or 'none'}"
        raise FaceNotFound(f"speaker: no face lies in the box at {float(seconds):.2f} s. {there}")
    return SpeakerRule(tracks=(track,), text=rule.text)


def _sized(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def _spans(numbers: Iterable[int]) -> str:
    """`1..9` of consecutive numbers, the numbers themselves otherwise."""
    known = sorted(numbers)
    if len(known) > 2 and known[-1] - known[0] == len(known) - 1:
        return f"{known[0]}..{known[-1]}"
    return ", ".join(map(str, known)) or "none"
