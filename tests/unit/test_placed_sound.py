"""A moved sound, exact to the sample: counts and clicks at several rates, up to an hour."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import write_wav
from lsx.media.audio_reader import SoundReader
from lsx.media.placed_sound import PlacedSound, placed_samples

_CLICK = 12000


def _clicks(path: Path, rate: int, seconds: float, at: list[int], channels: int = 1) -> SoundReader:
    """A file that is silent but for single samples at `at`."""
    pcm = np.zeros((round(seconds * rate), channels), "<i2")
    pcm[at] = _CLICK
    return SoundReader(write_wav(path, pcm, rate))


def _joined(sound: SoundReader, rate: int, kind: str = "s16", size: int = 1024) -> NDArray[Any]:
    """What an encoder gets, one channel: [samples]."""
    frames = list(sound.frames(kind, rate, size))
    assert all(frame.samples == size for frame in frames[:-1])
    channels = 1 if sound.layout == "mono" else 2
    parts = [frame.to_ndarray() for frame in frames]
    joined = np.concatenate(parts, axis=1)
    return joined[0] if kind.endswith("p") else joined[0, ::channels]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("offset", "seconds"),
    [("0.2", None), ("-0.3", None), ("0", "5.04"), ("0", "0.52"), ("0.5", "0.4"), ("-0.30003", "3"), ("0.70009", "2")],
)
def test_clicks_land_where_they_belong(
    tmp_path: Path, rate: int, channels: int, offset: str, seconds: str | None
) -> None:
    at = [0, rate // 10, rate - 1, 2 * rate - 1]
    sound = _clicks(tmp_path / "c.wav", rate, 2, at, channels)
    moved, lasts = Fraction(offset), None if seconds is None else Fraction(seconds)
    made = _joined(PlacedSound(sound, moved, lasts), rate)
    shift = round(moved * rate)
    assert len(made) == (2 * rate + shift if lasts is None else round(lasts * rate))
    assert np.flatnonzero(made).tolist() == [i + shift for i in at if 0 <= i + shift < len(made)]
    assert set(made[np.flatnonzero(made)].tolist()) <= {_CLICK}


@pytest.mark.parametrize("minutes", [1, 10, 59])
def test_hours_do_not_drift(tmp_path: Path, minutes: int) -> None:
    rate, seconds = 16000, 60 * minutes
    at = list(range(0, seconds * rate, 10 * rate + 1))
    sound = _clicks(tmp_path / "c.wav", rate, seconds, at)
    placed = PlacedSound(sound, Fraction(1, 3), Fraction(seconds * 25 + 50, 25))
    shift = round(Fraction(rate, 3))
    for made in (_joined(placed, rate), placed.samples()):
        assert len(made) == (seconds + 2) * rate
        assert np.flatnonzero(made).tolist() == [i + shift for i in at]


def test_planar_float_and_a_foreign_rate(tmp_path: Path) -> None:
    sound = _clicks(tmp_path / "c.wav", 44100, 1, [22050], 2)
    made = _joined(PlacedSound(sound, Fraction(1, 4), Fraction(2)), 48000, "fltp", 960)
    assert len(made) == 96000
    assert int(np.abs(made).argmax()) == 36000


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_what_the_model_hears(dtype: Any) -> None:
    samples = np.arange(1, 2001).astype(dtype)
    assert np.array_equal(placed_samples(samples, Fraction(0), None), samples)
    late = placed_samples(samples, Fraction(100, 16000), Fraction(1, 25))
    assert late.dtype == dtype
    assert np.array_equal(late, np.r_[np.zeros(100), np.arange(1, 541)])
    early = placed_samples(samples, Fraction(-100, 16000), Fraction(4, 25))
    assert np.array_equal(early, np.r_[np.arange(101, 2001), np.zeros(660)])
    assert not placed_samples(samples, Fraction(1), Fraction(1, 2)).any()
