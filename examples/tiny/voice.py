"""Speech-like sound from a formant synthesiser of its own: a glottal source and noise through a moving vocal tract."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAMPLE_RATE", "silence", "speech"]

SAMPLE_RATE = 16000

_STEP = 80  # samples between two settings of the tract: 5 ms
_WINDOW = 4 * _STEP
_SPECTRUM = 1024
_FRICATIVES = ((5600.0, 1300.0), (3000.0, 900.0), (4300.0, 2600.0))  # Hz: centre and breadth of s, sh, f
# First three formants in Hz of a, e, i, o, u, schwa and open e, for a tract of 17 cm.
_VOWELS = np.array(
    [
        (760, 1250, 2550),
        (450, 1950, 2600),
        (300, 2250, 3000),
        (480, 880, 2450),
        (320, 780, 2300),
        (520, 1450, 2450),
        (620, 1750, 2500),
    ],
    dtype=np.float64,
)
_BANDWIDTHS = np.array([80.0, 100.0, 140.0, 220.0])  # Hz
_FULL = 0.19  # root mean square of the loudest speaker's loudest syllable, over the largest level


@dataclass(frozen=True, slots=True, kw_only=True)
class _Speaker:
    pitch: float
    """Hz."""
    tract: float
    """Formants over those of the table."""
    pace: float
    """Length of sounds over the usual."""
    level: float
    """dB below the loudest speaker."""
    breath: float
    """Noise in the voice, as a share of it."""
    tilt: float
    """Hz above which the voice falls by 6 dB an octave."""
    room: float
    """Noise that is always there, dB over the largest level."""


@dataclass(frozen=True, slots=True, eq=False)
class _Score:
    """What the tract does, one value each 5 ms; amplitudes are relative to a loud vowel's."""

    voiced: NDArray[np.float64]
    hiss: NDArray[np.float64]
    """[3, steps]: of each fricative."""
    formants: NDArray[np.float64]
    """[steps, 3], Hz."""
    melody: NDArray[np.float64]
    """Pitch over the speaker's."""


def silence(seconds: float) -> NDArray[np.int16]:
    """Nothing, int16 [n] at 16 kHz."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def speech(seconds: float, seed: int) -> NDArray[np.int16]:
    """Syllables in phrases between pauses of 0.3 to 1 s, int16 [n] mono at 16 kHz; speaker and words by seed."""
    count = round(seconds * SAMPLE_RATE)
    rng = np.random.default_rng((seed, 0x70CE))
    speaker = _Speaker(
        pitch=float(np.exp(rng.uniform(np.log(90), np.log(260)))),
        tract=rng.uniform(0.92, 1.2),
        pace=rng.uniform(0.8, 1.25),
        level=-rng.uniform(0, 4),
        breath=rng.uniform(0.02, 0.08),
        tilt=rng.uniform(900, 2200),
        room=-rng.uniform(58, 90),
    )
    score = _written(speaker, -(-count // _STEP) + 4, rng)
    sound = _sung(speaker, score, rng)[:count] * _FULL * 10 ** (speaker.level / 20)
    sound += rng.standard_normal(count) * 10 ** (speaker.room / 20)
    return np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)


def _written(speaker: _Speaker, steps: int, rng: np.random.Generator) -> _Score:
    """Phrases of syllables until `steps` are full."""
    voiced, hiss = np.zeros(steps), np.zeros((len(_FRICATIVES), steps))
    marks: list[tuple[int, NDArray[np.float64]]] = [(0, _VOWELS[5])]
    melody = np.ones(steps)
    at = int(rng.uniform(0, 0.5) * 200)
    while at < steps:
        syllables = int(rng.integers(2, 9))
        start, slope = at, rng.uniform(0.1, 0.3)
        for _ in range(syllables):
            at = _syllable(speaker, (voiced, hiss, marks), at, rng)
        length = max(at - start, 1)
        falling = 1 + slope * (0.5 - np.arange(length) / length)
        stop = min(at, steps)
        melody[start:stop] = falling[: max(stop - start, 0)]
        at += int(rng.uniform(0.3, 1.0) * 200)
    places = np.array([place for place, _ in marks])
    targets = np.array([target for _, target in marks])
    formants = np.stack([np.interp(np.arange(steps), places, column) for column in targets.T], axis=1)
    wobble = 1 + 0.015 * np.sin(2 * np.pi * 5.2 * np.arange(steps) / 200 + rng.uniform(0, 6.3))
    return _Score(voiced=voiced, hiss=hiss, formants=formants * speaker.tract, melody=melody * wobble)


def _syllable(
    speaker: _Speaker,
    score: tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[int, NDArray[np.float64]]]],
    at: int,
    rng: np.random.Generator,
) -> int:
    """Write one syllable from step `at`: perhaps a consonant, then a vowel that may glide. The step after it."""
    voiced, hiss, marks = score
    steps = len(voiced)
    loud = 10 ** (-rng.uniform(0, 16) / 20)
    kind = rng.choice(["none", "fricative", "plosive", "nasal"], p=[0.25, 0.3, 0.3, 0.15])
    length = int(rng.uniform(0.06, 0.14) * 200 * speaker.pace)
    if kind == "fricative":
        _add(hiss[rng.integers(len(_FRICATIVES))], at, length, loud * rng.uniform(0.15, 0.5))
    elif kind == "plosive":
        burst = 3
        _add(hiss[rng.integers(len(_FRICATIVES))], at + length - burst, burst, loud * 0.6)
    elif kind == "nasal":
        _add(voiced, at, length, loud * 0.2)
        marks.append((at + length // 2, np.array([270.0, 1100.0, 2300.0])))
    if kind != "none":
        at += length
    length = int(rng.uniform(0.1, 0.3) * 200 * speaker.pace)
    first, second = rng.integers(len(_VOWELS), size=2)
    last = second if rng.uniform() < 0.3 else first
    marks += [(at + length // 4, _VOWELS[first]), (at + 3 * length // 4, _VOWELS[last])]
    if at < steps:
        _add(voiced, at, length, loud)
    return at + length


def _add(track: NDArray[np.float64], at: int, length: int, loud: float) -> None:
    """Raise `track` to `loud` over `length` steps, with a quick start and a slow end."""
    share = (np.arange(length) + 0.5) / max(length, 1)
    shape = np.clip(share / 0.2, 0, 1) ** 0.7 * np.clip((1 - share) / 0.4, 0, 1) ** 0.8
    stop = min(at + length, len(track))
    if stop > at:
        track[at:stop] = np.maximum(track[at:stop], loud * shape[: stop - at])


def _sung(speaker: _Speaker, score: _Score, rng: np.random.Generator) -> NDArray[np.float64]:
    """The sound of a score: short spectra of source and noise, each filtered as the tract then is, overlapped."""
    steps = len(score.voiced)
    count = steps * _STEP
    pitch = np.interp(np.arange(count) / _STEP, np.arange(steps), score.melody) * speaker.pitch
    phase = np.cumsum(pitch) / SAMPLE_RATE % 1
    # A glottal flow that opens over 0.6 of a period and closes fast; its derivative excites the tract.
    flow = np.where(phase < 0.6, np.sin(np.pi * phase / 1.2) ** 2, np.clip(1 - (phase - 0.6) / 0.12, 0, 1) ** 2)
    source = np.diff(flow, prepend=0.0) + speaker.breath * 0.1 * rng.standard_normal(count)
    noise = rng.standard_normal(count)
    places = np.arange(steps - _WINDOW // _STEP)[:, None] * _STEP + np.arange(_WINDOW)
    window = np.hanning(_WINDOW + 1)[:-1] / (_WINDOW / _STEP / 2)
    frequency = np.asarray(np.fft.rfftfreq(_SPECTRUM, 1 / SAMPLE_RATE), np.float64)
    middle = _WINDOW // _STEP // 2
    kept = slice(middle, middle + len(places))
    spectra = np.asarray(np.fft.rfft(source[places] * window, _SPECTRUM), np.complex128)
    spectra *= _tract(score.formants[kept], frequency, speaker)
    spectra *= score.voiced[kept, None] / np.std(source)
    hissed = sum(
        loud[kept, None] * np.exp(-(((frequency - centre) / breadth) ** 2))
        for (centre, breadth), loud in zip(_FRICATIVES, score.hiss, strict=True)
    )
    spectra += np.fft.rfft(noise[places] * window, _SPECTRUM) * hissed
    parts = np.fft.irfft(spectra, _SPECTRUM)
    sound = np.zeros(count + _SPECTRUM)
    for column in range(0, _SPECTRUM, _STEP):  # parts that start `column` samples apart never overlap within a step
        piece = parts[:, column : column + _STEP]
        rows = sound[column : column + len(parts) * _STEP].reshape(len(parts), _STEP)
        rows[:, : piece.shape[1]] += piece
    return sound[:count]


def _tract(formants: NDArray[np.float64], frequency: NDArray[np.float64], speaker: _Speaker) -> NDArray[np.complex128]:
    """Transfer function [steps, bins] of resonators in a row and the voice's tilt, of one loudness for all vowels."""
    fourth = np.full((len(formants), 1), 3600.0 * speaker.tract)
    centres = np.concatenate([formants, fourth], axis=1)[:, :, None]
    narrow = _BANDWIDTHS[None, :, None]
    poles = centres**2 + (narrow / 2) ** 2
    s = 1j * frequency[None, None]
    gains = poles / (poles - frequency[None, None] ** 2 + s * narrow)
    tilt = 1 / np.sqrt(1 + (frequency / speaker.tilt) ** 2)
    whole = gains.prod(axis=1) * tilt
    # A glottal source falls by 6 dB an octave from its pitch on: so much of each frequency there is to be filtered.
    weight = 1 / (1 + (frequency / speaker.pitch) ** 2) * (frequency > 0.7 * speaker.pitch)
    return np.asarray(whole / np.sqrt((np.abs(whole) ** 2 * weight).sum(axis=1, keepdims=True) / weight.sum()))
