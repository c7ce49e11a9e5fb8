"""Who speaks, by numbers: mouths that go with a sound, later than it, by themselves, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.faces.active_speaker import Agreement, Mouth, active_tracks
from lsx.faces.tracks import LONGEST_GAP

FRAMES, BANDS = 300, 16
Floats = NDArray[np.float64]


def wandering(random: np.random.Generator, columns: int) -> Floats:
    """Series [FRAMES, columns] that remember themselves for about a fifth of a second, as speech does."""
    series = np.zeros((FRAMES, columns))
    for number in range(1, FRAMES):
        series[number] = 0.8 * series[number - 1] + random.standard_normal(columns)
    return series


def scene(seed: int) -> tuple[Floats, Floats, np.random.Generator]:
    """The sound's bands, and a mouth that goes with them, 0.6 of it foretold by a linear map."""
    random = np.random.default_rng(seed)
    bands = wandering(random, BANDS)
    said = bands @ random.standard_normal(BANDS)
    other = wandering(random, 1)[:, 0]
    mouth = 0.6 * said / said.std() + 0.8 * other / other.std()
    return bands, 0.12 + 0.04 * mouth, random


def still(random: np.random.Generator) -> Floats:
    return 0.15 + 0.002 * random.standard_normal(FRAMES)


SPEECH = np.ones(FRAMES, bool)


@pytest.mark.parametrize(("other", "share"), [("later", 0.9), ("still", 0.98), ("by itself", 0.92)])
def test_the_mouth_that_goes_with_the_sound(other: str, share: float) -> None:
    """In 12 s, over ten seeds; a mouth that moves as much without the sound may look right for a second by chance."""
    right = []
    for seed in range(10):
        bands, mouth, random = scene(seed)
        wanders = 0.1 + 0.02 * wandering(random, 1)[:, 0]
        others = {"later": np.roll(mouth, 20), "still": still(random), "by itself": wanders}
        found = active_tracks({1: Mouth(0, others[other]), 2: Mouth(0, mouth)}, bands, SPEECH, [])
        right.append((found == 2).mean())
    assert np.mean(right) >= share
    assert min(right) > 0.5


def test_turns_are_found_where_they_change() -> None:
    right = []
    for seed in range(10):
        bands, mouth, random = scene(seed)
        first = np.arange(FRAMES) < 140
        left, right_one = np.where(first, mouth, still(random)), np.where(first, still(random), mouth)
        found = active_tracks({3: Mouth(0, left), 7: Mouth(0, right_one)}, bands, SPEECH, [])
        right.append((found == np.where(first, 3, 7)).mean())
        assert np.diff(np.flatnonzero(np.diff(found, prepend=-1, append=-1))).min() >= LONGEST_GAP
    assert np.mean(right) >= 0.95
    assert min(right) >= 0.9


def test_a_cut_ends_every_turn_and_a_face_that_is_not_there_never_speaks() -> None:
    bands, mouth, random = scene(0)
    mouths = {
        1: Mouth(0, mouth[:100]),
        2: Mouth(0, still(random)[:100]),
        3: Mouth(100, still(random)[:150]),
        4: Mouth(130, mouth[130:250]),
    }
    found = active_tracks(mouths, bands, SPEECH, [100, 250])
    assert (found[:100] == 1).all()
    assert (found[100:130] == 3).mean() > 0.5
    assert (found[145:250] == 4).all()
    assert (found[250:] == 0).all()  # a shot without faces


def test_in_silence_the_turn_is_held() -> None:
    bands, mouth, random = scene(1)
    speech = np.arange(FRAMES) < 150
    other = np.where(speech, still(random), 0.1 + 0.05 * np.sin(np.arange(FRAMES)))  # who chews meanwhile
    found = active_tracks({1: Mouth(0, other), 2: Mouth(0, mouth)}, bands, speech, [])
    assert (found == 2).all()


def test_where_nothing_is_heard_the_first_is_taken() -> None:
    mouths = {5: Mouth(0, np.full(FRAMES, 0.1)), 6: Mouth(0, np.full(FRAMES, 0.1))}
    assert (active_tracks(mouths, np.zeros((FRAMES, BANDS)), ~SPEECH, []) == 5).all()


def test_a_gap_in_what_was_seen_is_no_reason_to_change() -> None:
    bands, mouth, random = scene(2)
    mouth[100 : 100 + LONGEST_GAP] = np.nan
    found = active_tracks({1: Mouth(0, still(random)), 2: Mouth(0, mouth)}, bands, SPEECH, [])
    assert (found == 2).all()


@pytest.mark.parametrize("frames", [1, 2, 12, 40])
def test_short_footage(frames: int) -> None:
    bands, mouth, random = scene(3)
    mouths = {1: Mouth(0, mouth[:frames]), 2: Mouth(0, still(random)[:frames])}
    found = active_tracks(mouths, bands[:frames], SPEECH[:frames], [])
    assert found.shape == (frames,)
    assert set(found.tolist()) <= {1, 2}


def test_who_agrees_with_the_sound_more_than_the_others_speaks() -> None:
    """Two mouths that go with the sound alike: a network that saw more tells them apart, from turn to turn."""
    right = []
    for seed in range(10):
        bands, mouth, _ = scene(seed)
        mouths = {1: Mouth(0, mouth), 2: Mouth(0, mouth.copy())}
        starts = tuple(range(0, FRAMES - 15, 8))
        first = [0.3 if start < 150 else 0.02 for start in starts]
        second = [0.02 if start < 150 else 0.3 for start in starts]
        asked = {1: Agreement(starts, tuple(first)), 2: Agreement(starts, tuple(second))}
        found = active_tracks(mouths, bands, SPEECH, [], asked)
        right.append((found == np.where(np.arange(FRAMES) < 150, 1, 2)).mean())
        assert (active_tracks(mouths, bands, SPEECH, []) == 1).all()
    assert min(right) > 0.95


def test_an_agreement_of_one_face_alone_says_nothing() -> None:
    bands, mouth, random = scene(3)
    mouths = {1: Mouth(0, still(random)), 2: Mouth(0, mouth)}
    alone = {1: Agreement((0, 8), (0.9, 0.9))}
    assert np.array_equal(active_tracks(mouths, bands, SPEECH, [], alone), active_tracks(mouths, bands, SPEECH, []))


def test_an_agreement_by_frame() -> None:
    agreement = Agreement((2, 10), (0.2, 0.4))
    by_frame = agreement.between(0, 30)
    assert np.isnan(by_frame[:2]).all()
    assert np.isnan(by_frame[26:]).all()
    assert np.allclose(by_frame[[2, 9, 10, 17, 18, 25]], [0.2, 0.2, 0.3, 0.3, 0.4, 0.4])
    assert np.array_equal(agreement.between(5, 20), by_frame[5:20])
    assert np.isnan(agreement.between(26, 30)).all()
