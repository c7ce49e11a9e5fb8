"""Speech and silence of sounds that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.runtime.silence import speech_share, speech_spans


def _sound(*parts: tuple[float, float], noise: float = 0.0, seed: int = 0) -> NDArray[np.int16]:
    """Stretches of (seconds, loudness 0..1) of voice-like sound over noise."""
    rng = np.random.default_rng(seed)
    voice = [loud * rng.standard_normal(round(16000 * seconds)) * 0.2 for seconds, loud in parts]
    joined = np.concatenate(voice)
    return np.asarray(np.clip((joined + noise * rng.standard_normal(len(joined))) * 32767, -32768, 32767), np.int16)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 3e-3])
@pytest.mark.parametrize("seed", range(3))
def test_silences_are_found_over_any_noise(noise: float, seed: int) -> None:
    sound = _sound((1.0, 0), (1.0, 0.5), (0.8, 0), (1.0, 1.0), (0.2, 0), (1.0, 1.0), (1.0, 0), noise=noise, seed=seed)
    # A lead of 80 ms and a hangover of 160 ms; the 0.2 s between are part of speech.
    assert speech_spans(sound) == [(92, 216), (272, 516)]


def test_frames_fade_inside_the_silence() -> None:
    share = speech_share(_sound((1.0, 1), (1.0, 0), (1.0, 1)), 75)
    spans = speech_spans(_sound((1.0, 1), (1.0, 0), (1.0, 1)))
    assert spans == [(0, 116), (192, 300)]
    assert (share[:29] == 1).all()
    assert share[29:32].tolist() == [0.75, 0.5, 0.25]
    assert (share[32:45] == 0).all()
    assert share[45:48].tolist() == [0.25, 0.5, 0.75]
    assert (share[48:] == 1).all()


def test_nothing_but_silence_or_speech() -> None:
    assert not speech_share(np.zeros(16000, np.int16), 25).any()
    assert (speech_share(_sound((1, 1)), 25) == 1).all()
    assert (speech_share((_sound((1, 1)) / 32768).astype(np.float32), 25) == 1).all()
    assert speech_share(_sound((1, 1)), 60)[32:].any() == np.False_  # a sound that ends before the frames


@pytest.mark.parametrize("loudness", [1.0, 0.1, 0.03])
def test_a_soft_recording_without_pauses_is_speech(loudness: float) -> None:
    syllables = [(0.1, loudness * level) for _ in range(20) for level in (1.0, 0.4)]
    assert speech_spans(_sound(*syllables)) == [(0, 400)]


def test_a_short_pause_is_speech_and_a_longer_one_is_not() -> None:
    # 240 ms of lead and hangover come off
    assert len(speech_spans(_sound((1, 1), (0.62, 0), (1, 1)))) == 1
    assert len(speech_spans(_sound((1, 1), (0.66, 0), (1, 1)))) == 2
