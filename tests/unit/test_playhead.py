"""Where a live avatar is in its loop: positions of idle frames, of speech, of what was given up."""

from __future__ import annotations

import pytest

from lsx.runtime.live.playhead import FADE, Playhead


def test_idle_frames_go_on() -> None:
    playhead = Playhead()
    assert [playhead.idle(0.5) for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("computing", "away"), [(0.0, [0, 1, 0, 1]), (0.24, [0, 1, 2, 3, 2, 1, 0, 1])])
def test_out_and_back_while_speech_is_computed(computing: float, away: list[int]) -> None:
    playhead = Playhead()
    assert [playhead.idle(computing) for _ in range(5)][-1] == 4
    assert playhead.begin() == (5, True)
    assert [playhead.idle(computing) - 5 for _ in away] == away


def test_an_utterance_follows_on_the_one_before() -> None:
    playhead = Playhead()
    assert playhead.begin() == (0, True)
    playhead.plan(16)
    assert playhead.begin() == (16, False)
    playhead.plan(20)
    for position in range(20):
        playhead.speak(position, last=position in (15, 19))
        assert (playhead.planned is None) == (position == 19)
    assert playhead.idle(1.0) == 20
    assert playhead.begin() == (21, True)


def test_what_is_late_is_waited_for_where_it_will_be() -> None:
    playhead = Playhead()
    playhead.begin()
    playhead.plan(16)
    playhead.speak(0, last=False)
    assert [playhead.idle(0.16) for _ in range(5)] == [1, 2, 3, 2, 1]
    playhead.speak(1, last=False)
    assert playhead.idle(0.16) == 2


def test_what_was_given_up_fades_out_where_it_follows_on() -> None:
    playhead = Playhead()
    playhead.begin()
    playhead.plan(16)
    playhead.speak(0, last=False)
    playhead.clear()
    assert playhead.fade(2) is None
    assert [playhead.fade(1 + frame) for frame in range(FADE)] == [3 / 4, 2 / 4, 1 / 4]
    assert playhead.fade(1 + FADE) is None
    assert playhead.idle(1.0) == 1 + FADE


def test_a_frame_shown_while_its_utterance_is_given_up_leaves_nothing_to_wait_for() -> None:
    playhead = Playhead()
    playhead.begin()
    playhead.plan(16)
    playhead.clear()
    playhead.speak(0, last=False)
    assert [playhead.idle(0.16) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_no_fade_after_an_idle_frame() -> None:
    playhead = Playhead()
    playhead.speak(0, last=True)
    playhead.idle(1.0)
    assert playhead.fade(2) is None
