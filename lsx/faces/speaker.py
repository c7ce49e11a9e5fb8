"""The faces of a frame that are made to speak: chosen at the beginning of a shot, and then followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from lsx.core.speaker_rule import SpeakerRule
from lsx.faces.alignment import Face
from lsx.faces.tracks import LONGEST_GAP, TrackedFace, box_of, overlap

__all__ = ["ActiveTrack", "Chooser", "EveryChooser", "SpeakerChoice", "SpeakerChooser", "chooser_for", "track_in_box"]


@dataclass(frozen=True, slots=True)
class SpeakerChoice:
    """The track that is taken from a frame on."""

    frame: int
    """The video's, at the run's rate."""
    track: int
    lost: bool
    """Whether the one before was lost within its shot; otherwise a shot began, none had been chosen, or this one began
    to speak."""


class Chooser(Protocol):
    """Chooses among the faces of frames that come in order."""

    choices: list[SpeakerChoice]

    def choose(self, frame: int, faces: Sequence[TrackedFace], width: int, *, new_shot: bool) -> dict[int, Face]:
        """The faces that speak in the video's frame `frame`, `width` pixels wide, each at its place.

        A face keeps its place, 0 or more, for as long as it is followed.
        """


ActiveTrack = Callable[[int], int]
"""The track that speaks in a frame of the video, 0 where none does."""


def chooser_for(rule: SpeakerRule, active: ActiveTrack = lambda _: 0) -> Chooser:
    """The chooser of one face, or of several. rule : with its box resolved; active : where that is the rule."""
    if rule.tracks:
        return EveryChooser(lambda _, track: track in rule.tracks)
    if rule.place == "active":
        return EveryChooser(lambda frame, track: track == active(frame))
    return EveryChooser(lambda _, __: True) if rule.place == "all" else SpeakerChooser(rule)


@dataclass(slots=True, eq=False)
class EveryChooser:
    """Takes all faces that are wanted. Each new one gets the lowest place that is free."""

    wanted: Callable[[int, int], bool]
    """Whether a track is, in a frame of the video."""
    choices: list[SpeakerChoice] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)
    _latest: dict[int, int] = field(default_factory=dict)

    def choose(self, frame: int, faces: Sequence[TrackedFace], _: int, *, new_shot: bool) -> dict[int, Face]:
        """All that are wanted."""
        for track, seen in list(self._latest.items()):
            if new_shot or frame - seen > LONGEST_GAP:
                del self._latest[track], self._places[track]
        wanted = [tracked for tracked in faces if self.wanted(frame, tracked.track)]
        for track in sorted(tracked.track for tracked in wanted):
            if track not in self._places:
                self._places[track] = next(place for place in count() if place not in self._places.values())
                self.choices.append(SpeakerChoice(frame, track, lost=False))
            self._latest[track] = frame
        return {self._places[tracked.track]: tracked.face for tracked in wanted}


@dataclass(slots=True, eq=False)
class SpeakerChooser:
    """Chooses one face, and holds on to the choice.

    A choice is made at the first face of a shot, and lasts as long as the track does. Where its face is missing the
    frame has none, for at most half a second; then another is chosen. A face that was never seen beside the lost one is
    taken at once: it may be the same.
    """

    rule: SpeakerRule
    choices: list[SpeakerChoice] = field(default_factory=list)
    _held: int | None = None
    _missing: int = 0
    _beside: set[int] = field(default_factory=set)

    def choose(self, frame: int, faces: Sequence[TrackedFace], width: int, *, new_shot: bool) -> dict[int, Face]:
        """The one face at place 0, or none."""
        present = {tracked.track: tracked.face for tracked in faces}
        if new_shot:
            self._held, self._beside = None, set()
        if self._held in present:
            self._missing = 0
            self._beside |= present.keys() - {self._held}
            return {0: present[self._held]}
        self._missing += 1
        if self._held is not None and self._missing <= LONGEST_GAP:
            faces = [tracked for tracked in faces if tracked.track not in self._beside]
        if not faces:
            return {}
        chosen = self._first(faces, width)
        self._take(frame, chosen, lost=self._held is not None)
        self._beside = set(present) - {chosen}
        return {0: present[chosen]}

    def _take(self, frame: int, track: int, *, lost: bool) -> None:
        if self._held != track:
            self.choices.append(SpeakerChoice(frame, track, lost))
        self._held, self._missing = track, 0

    def _first(self, faces: Sequence[TrackedFace], width: int) -> int:
        """The track that the rule takes among these, the first of equals."""

        def rank(tracked: TrackedFace) -> tuple[float, int]:
            x0, y0, x1, y1 = box_of(tracked.face)
            middle = (x0 + x1) / 2
            ranks = {
                "largest": -(x1 - x0) * (y1 - y0),
                "left": middle,
                "right": -middle,
                "center": abs(middle - width / 2),
            }
            return ranks[self.rule.place], tracked.track

        return min(faces, key=rank).track


def track_in_box(box: tuple[float, float, float, float], faces: Sequence[TrackedFace]) -> int | None:
    """The track of the face that has most in common with `box` (x0, y0, x1, y1), or None where none touches it."""
    shares = [(overlap(box_of(tracked.face), box), -tracked.track) for tracked in faces]
    share, track = max(shares, default=(0.0, 0))
    return -track if share > 0 else None
