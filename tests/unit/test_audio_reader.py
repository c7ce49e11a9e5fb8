"""Sound in: samples of a file, checked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.errors import LsxError, MediaError, UsageError
from lsx.media.audio_reader import SoundReader, as_samples


def test_a_wav_is_its_samples_and_read_once(tmp_path: Path) -> None:
    sound = SoundReader(write_wav(tmp_path / "s.wav", speech(0.3)))
    assert (sound.codec, sound.rate, sound.layout) == ("pcm_s16le", 16000, "mono")
    assert np.array_equal(sound.samples(), speech(0.3))
    assert sound.samples() is sound.samples()
    ends = [end for _, end in sound.packets()]
    assert ends[-1] == Fraction(len(speech(0.3)), 16000)


def test_another_rate_keeps_the_length_and_the_tone(tmp_path: Path) -> None:
    time = np.arange(44100) / 44100
    write_wav(tmp_path / "s.wav", (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16), 44100)
    samples = SoundReader(tmp_path / "s.wav").samples()
    assert abs(len(samples) - 16000) <= 32
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert abs(spectrum.argmax() * 16000 / len(samples) - 440) < 2


def test_refusals(tmp_path: Path) -> None:
    write_clip(tmp_path / "mute.mp4", portrait_frames(3))
    with pytest.raises(MediaError, match="no audio stream"):
        SoundReader(tmp_path / "mute.mp4")
    write_wav(tmp_path / "s.wav", np.zeros(100, np.int16))
    with pytest.raises(MediaError, match=r"s\.wav: the audio has 100 samples"):
        SoundReader(tmp_path / "s.wav").samples()


@pytest.mark.parametrize(
    ("samples", "kind", "said"),
    [
        (np.zeros((400, 2), np.int16), UsageError, "one axis"),
        (np.zeros(400), UsageError, "float64"),
        (np.full(400, np.nan, np.float32), MediaError, "not finite"),
        (np.zeros(319, np.int16), MediaError, "20 ms"),
    ],
)
def test_samples(samples: np.ndarray, kind: type[LsxError], said: str) -> None:
    with pytest.raises(kind, match=said):
        as_samples(samples)
    assert len(as_samples(np.zeros(320, np.int16))) == 320
