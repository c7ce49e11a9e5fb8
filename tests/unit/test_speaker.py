"""Who speaks: the rule that a user gives, and the face that is held on to."""

from __future__ import annotations

import pytest

from lsx.core.footage import FootageOptions
from lsx.core.speaker_rule import SpeakerRule
from lsx.errors import UsageError
from lsx.faces.speaker import Chooser, chooser_for, track_in_box
from lsx.faces.tracks import LONGEST_GAP, TrackedFace
from tests.unit.test_tracks import face

WIDTH = 500
Frames = list[dict[int, tuple[float, float]]]
"""Of each frame: track to x and size."""


def chosen(rule: str, frames: Frames, cuts: tuple[int, ...] = (0,)) -> tuple[list[int | None], Chooser]:
    """The track that is taken at place 0 in each frame."""
    chooser = chooser_for(SpeakerRule.parsed(rule))
    taken: list[int | None] = []
    for number, present in enumerate(frames):
        tracked = [TrackedFace(track, face(x, 100, size)) for track, (x, size) in present.items()]
        found = chooser.choose(number, tracked, WIDTH, new_shot=number in cuts).get(0)
        taken.append(next((one.track for one in tracked if one.face is found), None))
    return taken, chooser


LEFT, MIDDLE, RIGHT = (60.0, 80.0), (255.0, 60.0), (430.0, 100.0)


@pytest.mark.parametrize(("rule", "track"), [("largest", 3), ("left", 1), ("center", 2), ("right", 3), ("2", 2)])
def test_places(rule: str, track: int) -> None:
    assert chosen(rule, [{1: LEFT, 2: MIDDLE, 3: RIGHT}] * 3)[0] == [track] * 3


def test_the_largest_of_the_first_frame_is_followed_though_another_grows() -> None:
    frames: Frames = [{1: (100, 100 + 5 * (-1) ** n), 2: (400, 100 - 5 * (-1) ** n)} for n in range(30)]
    taken, chooser = chosen("largest", frames)
    assert taken == [1] * 30
    assert [(c.frame, c.track, c.lost) for c in chooser.choices] == [(0, 1, False)]


def test_a_new_shot_is_a_new_choice() -> None:
    frames: Frames = [{1: LEFT, 2: RIGHT}] * 5 + [{3: LEFT}] * 5 + [{}] * 2 + [{4: (60, 50), 5: (430, 60)}] * 5
    taken, chooser = chosen("left", frames, cuts=(0, 5, 10))
    assert taken == [1] * 5 + [3] * 5 + [None] * 2 + [4] * 5
    assert [(c.frame, c.track, c.lost) for c in chooser.choices] == [(0, 1, False), (5, 3, False), (12, 4, False)]


def test_a_choice_is_held_for_half_a_second_where_its_face_is_lost() -> None:
    both, alone = {1: RIGHT, 2: LEFT}, {2: LEFT}
    taken, chooser = chosen("largest", [both] * 3 + [alone] * LONGEST_GAP + [both] * 2)
    assert taken == [1] * 3 + [None] * LONGEST_GAP + [1] * 2
    assert len(chooser.choices) == 1
    taken, chooser = chosen("largest", [both] * 3 + [alone] * (LONGEST_GAP + 3) + [both] * 2)
    assert taken == [1] * 3 + [None] * LONGEST_GAP + [2] * 5
    assert [(c.frame, c.track, c.lost) for c in chooser.choices][1:] == [(3 + LONGEST_GAP, 2, True)]


def test_a_face_that_was_never_seen_beside_the_lost_one_is_taken_at_once() -> None:
    """One face that jumps gets a new number; it must not stay untouched for half a second."""
    taken, chooser = chosen("largest", [{1: LEFT}] * 3 + [{2: RIGHT}] * 3 + [{}] + [{3: LEFT}] * 2)
    assert taken == [1] * 3 + [2] * 3 + [None] + [3] * 2
    assert [c.lost for c in chooser.choices] == [False, True, True]


def places(rule: str, frames: Frames, cuts: tuple[int, ...] = (0,)) -> list[dict[int, int]]:
    """Place to track of each frame."""
    chooser, taken = chooser_for(SpeakerRule.parsed(rule)), []
    for number, present in enumerate(frames):
        tracked = [TrackedFace(track, face(x, 100, size)) for track, (x, size) in present.items()]
        found = chooser.choose(number, tracked, WIDTH, new_shot=number in cuts)
        numbers = {id(one.face): one.track for one in tracked}
        taken.append({place: numbers[id(its)] for place, its in found.items()})
    return taken


def test_every_listed_track_is_taken_and_nothing_else() -> None:
    frames: Frames = [{1: LEFT}, {1: LEFT, 2: RIGHT}, {2: RIGHT, 3: MIDDLE}, {3: MIDDLE}, {}]
    assert places("2,1", frames) == [{0: 1}, {0: 1, 1: 2}, {1: 2}, {}, {}]


def test_all_faces_keep_their_places_until_a_shot_ends_or_they_are_lost() -> None:
    frames: Frames = [{2: LEFT, 1: RIGHT}, {2: LEFT}, {2: LEFT, 1: RIGHT, 3: MIDDLE}]
    assert places("all", frames) == [{0: 1, 1: 2}, {1: 2}, {0: 1, 1: 2, 2: 3}]
    assert places("all", [*frames, {4: LEFT}], cuts=(0, 3))[-1] == {0: 4}
    lost: Frames = [{1: LEFT, 2: RIGHT}, *[{2: RIGHT}] * LONGEST_GAP, {2: RIGHT, 5: LEFT}]
    assert places("all", lost)[-1] == {1: 2, 0: 5}
    assert places("all", [lost[0], *lost[2:]])[-1] == {1: 2, 2: 5}


def test_the_face_in_a_box() -> None:
    faces = [TrackedFace(1, face(60, 100)), TrackedFace(2, face(430, 100))]
    assert track_in_box((380, 50, 480, 150), faces) == 2
    assert track_in_box((0, 0, 480, 150), faces) == 1  # of equals the first
    assert track_in_box((200, 50, 300, 150), faces) is None
    assert track_in_box((200, 50, 300, 150), []) is None


def test_rules_as_they_are_written() -> None:
    rule = SpeakerRule.parsed("box=10,20.5,100,50@1:02.5")
    assert (rule.box, rule.second) == ((10, 20.5, 110, 70.5), 62.5)
    assert SpeakerRule.parsed("box=-5,0,10,10").second == 0
    assert SpeakerRule.parsed("3,1").tracks == (3, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "biggest",
        "1,",
        "all,1",
        "box=1,2,3",
        "box=1,2,0,4",
        "box=1,2,3,4@",
        "box=1,2,3,4@1:x",
        "-1",
        "box=1.2.3,1,1,1",
    ],
)
def test_other_rules_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"speaker is .*give largest, left, center, right, active, all, a track"):
        SpeakerRule.parsed(wrong)
    with pytest.raises(UsageError, match=r"speaker is .*give largest, left, center, right, active, all, a track"):
        FootageOptions(speaker=wrong)


def test_what_must_be_known_of_the_whole_video_needs_a_file() -> None:
    for rule in ("2", "box=1,2,3,4@5"):
        with pytest.raises(UsageError, match=r"needs faces, a file that lsx faces VIDEO -o tracks\.json writes"):
            FootageOptions(speaker=rule)
    assert FootageOptions(speaker="box=1,2,3,4@5", start=5).speaker_rule.second == 5
    assert FootageOptions(speaker="2", faces="t.json").speaker_rule.tracks == (2,)
