"""The sound of live chunks: places worked out by hand, the same for any pieces, and what is cleared, ended and kept."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.core.threaded_stages import Stopped
from lsx.errors import UsageError
from lsx.runtime.live.speech import CONTEXT_FRAMES, LiveSpeech, Rhythm, SpokenChunk

RHYTHM = Rhythm(frames=16, overlap=4, ahead=2, samples=640)


def _sound(frames: float, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-30000, 30000, int(640 * frames)).astype(np.int16)


def _taken(speech: LiveSpeech) -> list[SpokenChunk]:
    """All chunks that are complete."""
    found = []
    while any(one.complete for one in list(speech._waiting)):
        found.append(speech.take())
    return found


def test_places() -> None:
    assert (RHYTHM.hop, RHYTHM.chunk(2), RHYTHM.fresh(0), RHYTHM.fresh(2)) == (
        12,
        range(24, 40),
        range(16),
        range(28, 40),
    )
    assert RHYTHM.needed(0) == 18 * 640
    counts = {0: 0, 1: 1, 16 * 640: 1, 16 * 640 + 1: 2, 28 * 640: 2, 28 * 640 + 1: 3}
    assert {samples: RHYTHM.count(samples) for samples in counts} == counts


def test_a_chunk_comes_when_its_sound_and_80_ms_more_are_there() -> None:
    speech, sound = LiveSpeech(RHYTHM), _sound(40)
    speech.say(sound[: 18 * 640 - 1])
    assert _taken(speech) == []
    assert speech.pending == pytest.approx(0.72, abs=1e-4)
    speech.say(sound[18 * 640 - 1 : 18 * 640])
    (first,) = _taken(speech)
    assert (first.number, first.frames, first.fresh, first.begin, first.last) == (0, range(16), range(16), 0, False)
    assert np.array_equal(first.heard, sound[: 18 * 640])
    assert np.array_equal(first.sound, sound[: 16 * 640])
    speech.say(sound[18 * 640 : 30 * 640])
    (second,) = _taken(speech)
    assert (second.frames, second.fresh) == (range(12, 28), range(16, 28))
    assert np.array_equal(second.heard, sound[: 30 * 640])
    assert np.array_equal(second.sound, sound[16 * 640 : 28 * 640])
    assert speech.pending == pytest.approx(2 / 25)


@pytest.mark.parametrize("seed", range(10))
def test_any_pieces_give_the_same_chunks(seed: int) -> None:
    random, sound = np.random.default_rng(seed), _sound(float(np.random.default_rng(seed).uniform(1, 100)), seed)

    def chunks(cuts: list[int]) -> list[SpokenChunk]:
        speech, found = LiveSpeech(RHYTHM), []
        for piece in np.split(sound, cuts):
            speech.say(piece)
            found += _taken(speech)
        speech.end()
        return found + _taken(speech)

    whole = chunks([])
    pieces = chunks(sorted(random.integers(0, len(sound), 30).tolist()))
    assert len(whole) == RHYTHM.count(len(sound)) == len(pieces)
    assert [one.last for one in whole] == [one.last for one in pieces] == [*[False] * (len(whole) - 1), True]
    for one, other in zip(whole, pieces, strict=True):
        assert (one.number, one.frames, one.begin) == (other.number, other.frames, other.begin)
        assert np.array_equal(one.heard, other.heard)
        assert np.array_equal(one.sound, other.sound)
    assert np.array_equal(np.concatenate([one.sound for one in whole])[: len(sound)], sound)


def test_after_half_a_minute_the_encoder_hears_the_last_half_and_no_more_is_kept() -> None:
    speech, sound = LiveSpeech(RHYTHM), _sound(1600)
    found: list[SpokenChunk] = []
    for start in range(0, len(sound), 8000):
        speech.say(sound[start : start + 8000])
        found += _taken(speech)
        assert len(speech._waiting[0]._sound) <= (CONTEXT_FRAMES + 40) * 640
    for chunk in found:
        stop = chunk.frames.stop + 2
        assert chunk.begin == max(stop - CONTEXT_FRAMES, 0)
        assert np.array_equal(chunk.heard, sound[chunk.begin * 640 : stop * 640])


def test_what_ends_is_filled_up_with_silence_and_the_next_one_begins_anew() -> None:
    speech, sound = LiveSpeech(RHYTHM), _sound(5)
    speech.say(sound)
    before = speech.is_speaking
    speech.end()
    speech.end()
    assert (before, speech.is_speaking) == (False, True)
    speech.say(_sound(18, 1))
    first, second = _taken(speech)
    assert (first.utterance.number, first.number, first.last) == (0, 0, True)
    assert np.array_equal(first.heard[: 5 * 640], sound)
    assert not first.heard[5 * 640 :].any()
    assert (second.utterance.number, second.number, second.last) == (1, 0, False)
    assert np.array_equal(second.heard, _sound(18, 1))
    speech.forget(first.utterance)  # it is shown
    assert [one.number for one in speech._unshown] == [1]
    assert not speech.is_speaking


def test_what_is_cleared_is_forgotten() -> None:
    speech = LiveSpeech(RHYTHM)
    speech.say(_sound(100))
    first = speech.take()
    speech.clear()
    assert first.utterance.cleared
    assert speech.pending == 0
    assert _taken(speech) == []
    speech.end()
    speech.say(_sound(18))
    assert [chunk.utterance.number for chunk in _taken(speech)] == [1]


def test_closing_ends_who_waits() -> None:
    speech, ended = LiveSpeech(RHYTHM), threading.Event()

    def wait() -> None:
        with pytest.raises(Stopped):
            speech.take()
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    speech.close()
    assert ended.wait(10)
    thread.join()


def test_kinds_of_samples() -> None:
    speech = LiveSpeech(RHYTHM)
    speech.say(np.array([0.5, -1.0, 1.0, 2.0], np.float32))
    speech.say(np.zeros(0, np.int16))
    speech.end()
    assert speech.take().sound[:5].tolist() == [16384, -32768, 32767, 32767, 0]
    for wrong in ([0.5], "sound", np.zeros((2, 2), np.int16), np.zeros(3), None):
        with pytest.raises(UsageError, match="give int16 or float32 of one axis"):
            speech.say(wrong)
    with pytest.raises(UsageError, match="not finite"):
        speech.say(np.array([np.nan], np.float32))
