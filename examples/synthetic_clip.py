"""A talking clip made by code alone: scikit-image's public-domain portrait in motion, and speech-like sound."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

__all__ = ["portrait_frames", "speech", "write_clip", "write_wav"]

_EXACT = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_SYLLABLES = 4  # a second
_FORMANTS = ((700, 1.0), (1200, 0.6), (2500, 0.3))  # Hz and loudness, of an open vowel


def portrait_frames(count: int, width: int = 640, height: int = 480, fps: float = 25) -> Iterator[NDArray[np.uint8]]:
    """`count` frames uint8 [height, width, 3]: the portrait drifting, nodding and breathing."""
    from skimage.data import astronaut

    portrait = np.asarray(astronaut()[:320, 60:400])
    for index in range(count):
        t = index / fps
        scale = height / 320 * (1.0 + 0.03 * np.sin(2.1 * t))
        angle = 3 * np.sin(1.3 * t)
        matrix = cv2.getRotationMatrix2D((170.0, 160.0), angle, scale)
        matrix[:, 2] += (width / 2 - 170 + 20 * np.sin(0.9 * t), height / 2 - 160 + 8 * np.sin(1.7 * t))
        frame = cv2.warpAffine(portrait, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        yield np.asarray(frame, dtype=np.uint8)


def speech(seconds: float, rate: int = 16000, seed: int = 0) -> NDArray[np.int16]:
    """Speech-like sound, int16: a gliding voice through three formants, in syllables, with a little breath."""
    t = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = np.zeros_like(t)
    for harmonic in range(1, 30):
        frequency = harmonic * 120.0
        loudness = sum(a * np.exp(-(((frequency - f) / 250) ** 2)) for f, a in _FORMANTS)
        voice += (loudness + 0.02) * np.sin(harmonic * phase) * (frequency < rate / 2)
    syllables = np.clip(np.sin(np.pi * _SYLLABLES * t), 0, None) ** 0.5
    breath = np.random.default_rng(seed).standard_normal(len(t)) * 0.02
    sound = voice * syllables + breath
    return np.asarray(sound / np.abs(sound).max() * 0.6 * 32767, dtype=np.int16)


def write_clip(
    path: Path,
    frames: Iterator[NDArray[np.uint8]],
    *,
    rate: Fraction | int = 25,
    stamps: list[int] | None = None,
    rotation: int = 0,
    crf: int = 12,
    gop: int = 12,
    sound: NDArray[np.int16] | None = None,
) -> Path:
    """Encode frames as H.264. stamps : milliseconds of each frame, for a variable rate; rotation : tagged, degrees;
    sound : int16 mono at 16 kHz, as AAC.
    """
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": str(crf), "g": str(gop)}
        stream: Any = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        voice: Any = None if sound is None else container.add_stream("aac", rate=16000, layout="mono")
        if rotation:
            stream.set_display_rotation(rotation)
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
                if stamps is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", src_color_range=2, dst_color_range=1, interpolation=_EXACT
            )
            if stamps is not None:
                picture.pts, picture.time_base = stamps[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, len(sound), 1024):
                part = np.ascontiguousarray(sound[None, start : start + 1024])
                samples = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                samples.sample_rate, samples.pts = 16000, start
                container.mux(voice.encode(samples))
            container.mux(voice.encode(None))
    return path


def write_wav(path: Path, samples: NDArray[np.int16], rate: int = 16000) -> Path:
    """Write int16 samples [n] or [n, channels] as a WAV file."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(samples).tobytes())
    return path
