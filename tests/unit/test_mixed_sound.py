"""Sounds laid over another, sample for sample, against the sum by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import write_wav
from lsx.core.footage import Mix
from lsx.errors import UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.mixed_sound import LaidSound, MixedSound

RATE = 44100
SECONDS = Fraction(2)


def _noise(path: Path, seed: int, seconds: float, channels: int = 1, rate: int = RATE) -> SoundReader:
    pcm = np.random.default_rng(seed).integers(-8000, 8000, (round(seconds * rate), channels)).astype("<i2")
    return SoundReader(write_wav(path, pcm, rate))


def _heard(sound: SoundReader, rate: int = RATE) -> NDArray[Any]:
    """int16 [samples, channels]."""
    channels = 1 if sound.layout == "mono" else 2
    return np.concatenate([f.to_ndarray().reshape(-1, channels) for f in sound.frames("s16", rate, 1024)])


def _share(start: float, stop: float, count: int) -> NDArray[np.float64]:
    """Full from 10 ms after the start to 10 ms before the end."""
    places = np.arange(count) + 0.5
    ends = np.minimum(places - round(start * RATE), round(stop * RATE) - places)
    return np.asarray(np.clip(ends / (RATE // 100), 0, 1))


@pytest.mark.parametrize(("mix", "left"), [("replace", 0.0), ("over", 1.0), ("duck", 0.25)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_mixture_is_the_sum(tmp_path: Path, mix: Mix, left: float, channels: int) -> None:
    own = _noise(tmp_path / "own.wav", 1, 1.5, channels)
    first, second = _noise(tmp_path / "a.wav", 2, 3), _noise(tmp_path / "b.wav", 3, 0.2)
    laid = [
        LaidSound(first, Fraction("0.30001"), Fraction("0.9"), 0.5),
        LaidSound(second, Fraction("1.2"), Fraction("1.9")),
    ]
    mixed = MixedSound(own, laid, SECONDS, mix)
    made = _heard(mixed)
    assert made.shape == (2 * RATE, channels)
    expected = np.zeros((2 * RATE, channels))
    expected[: round(1.5 * RATE)] = _heard(own)
    for sound, start, stop, volume in ((first, 0.30001, 0.9, 0.5), (second, 1.2, 1.9, 1.0)):
        share = _share(start, stop, 2 * RATE)[:, None]
        over = np.zeros((2 * RATE, 1))
        there = _heard(sound)[: round(stop * RATE) - round(start * RATE)]
        over[round(start * RATE) : round(start * RATE) + len(there)] = there
        expected = expected * (1 - share * (1 - left)) + share * volume * over
    np.testing.assert_allclose(made, expected, atol=1.01)
    untouched = np.concatenate([_share(0.30001, 0.9, 2 * RATE), _share(1.2, 1.9, 2 * RATE)]).reshape(2, -1).max(0) == 0
    assert np.array_equal(made[untouched], expected[untouched])  # the video's own samples, bit for bit
    heard = mixed.samples()
    assert heard.dtype == np.float32
    assert len(heard) == 32000


def test_without_a_sound_of_its_own_there_is_silence_between(tmp_path: Path) -> None:
    sound = _noise(tmp_path / "a.wav", 2, 3, 2, 48000)
    mixed = MixedSound(None, [LaidSound(sound, Fraction(1), Fraction("1.5"))], SECONDS, "replace")
    assert (mixed.rate, mixed.layout) == (48000, "stereo")
    made = _heard(mixed, 48000)
    assert np.flatnonzero(made.any(axis=1))[[0, -1]].tolist() == pytest.approx([48000, 71999], abs=20)
    assert np.array_equal(made[49000:71000], _heard(sound, 48000)[1000:23000])
    with pytest.raises(UsageError, match="no packets to copy"):
        mixed.packets()


def test_another_rate_does_not_move_it(tmp_path: Path) -> None:
    """Clicks of a sound at 16 kHz land at the right sample of a video's 48 kHz, ten minutes in."""
    pcm = np.zeros((16000, 1), "<i2")
    pcm[8000] = 20000
    write_wav(tmp_path / "c.wav", pcm)
    own = _noise(tmp_path / "own.wav", 1, 0.1, 1, 48000)
    start = Fraction(599)
    mixed = MixedSound(own, [LaidSound(SoundReader(tmp_path / "c.wav"), start, start + 1)], start + 1, "replace")
    made = _heard(mixed, 48000)[:, 0]
    assert len(made) == 600 * 48000
    assert int(np.abs(made[4800:].astype(int)).argmax()) + 4800 == round((599 + 0.5) * 48000)
