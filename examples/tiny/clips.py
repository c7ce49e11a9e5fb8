"""Clips of tiny faces that talk, with the truth of every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.tiny.face import Identity, Pose, lip_centre, mouth_region, points, render
from examples.tiny.mouth import FRAME_SAMPLES, MouthTrack, mouth_track
from examples.tiny.voice import SAMPLE_RATE, speech

__all__ = ["TinyClip", "motion", "render_truth", "tiny_clip"]

_FPS = SAMPLE_RATE // FRAME_SAMPLES
_BLINK = (0.0, 0.5, 1.0, 1.0, 0.6, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TinyClip:
    """A talking face and what is known of it."""

    identity: Identity
    poses: tuple[Pose, ...]
    frames: NDArray[np.uint8]
    """[n, H, W, 3] RGB, 25 a second."""
    samples: NDArray[np.int16]
    """[n * 640] mono at 16 kHz."""
    truth: MouthTrack
    lips: NDArray[np.float64]
    """[n, 2]: (x, y) of the middle of the closed lips, frame pixels."""
    regions: NDArray[np.float64]
    """[n, 4]: x0, y0, x1, y1 round lips of any opening and width, frame pixels."""
    points: NDArray[np.float64]
    """[n, 3, 2]: left brow, right brow, nose as drawn, frame pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames, pixels."""
        return self.frames.shape[1], self.frames.shape[2]


def motion(seed: int, frames: int) -> tuple[Pose, ...]:
    """Small drifts, tilts, blinks and glances of a head, smooth in time; by seed, whatever the sound."""
    rng = np.random.default_rng((seed, 0xD21F))
    base = {"x": rng.uniform(0.47, 0.53), "y": rng.uniform(0.45, 0.49), "size": rng.uniform(0.53, 0.58)}
    reach = {"x": 0.02, "y": 0.012, "size": 0.012, "angle": 3.5}
    t = np.arange(frames) / _FPS
    tracks = {name: base.get(name, rng.uniform(-2, 2)) + _drift(t, most, rng) for name, most in reach.items()}
    gaze = np.stack([_glances(frames, rng), 0.5 * _glances(frames, rng)], axis=1)
    blink = _blinks(frames, rng)
    return tuple(
        Pose(
            **{name: float(track[i]) for name, track in tracks.items()},
            blink=float(blink[i]),
            gaze=(*gaze[i].tolist(),),
        )
        for i in range(frames)
    )


def tiny_clip(
    seed: int, frames: int, size: tuple[int, int] = (256, 256), sound: NDArray[np.int16] | None = None
) -> TinyClip:
    """`frames` of identity, motion and voice of `seed`, in a picture of `size` (height, width).

    sound : int16 [n] at 16 kHz instead of the seed's own voice; cut, or filled with silence, to the frames.
    """
    samples = speech(frames * FRAME_SAMPLES / SAMPLE_RATE, seed) if sound is None else _fitted(sound, frames)
    return _rendered(Identity.from_seed(seed), motion(seed, frames), samples, size)


def render_truth(clip: TinyClip, samples: NDArray[np.int16], frames: int | None = None) -> TinyClip:
    """What `clip` would look like had its face said `samples`, int16 [n] at 16 kHz: the truth of a dubbing.

    frames : by default as many as begin within the samples. A clip that is shorter goes back and forth, as lsx does it:
    0 .. V-1, V-1 .. 0, and so on.
    """
    count = -(-len(samples) // FRAME_SAMPLES) if frames is None else frames
    there_and_back = np.concatenate([np.arange(len(clip.poses)), np.arange(len(clip.poses))[::-1]])
    poses = tuple(clip.poses[i] for i in np.resize(there_and_back, count))
    return _rendered(clip.identity, poses, _fitted(samples, count), clip.size)


def _rendered(
    identity: Identity, poses: tuple[Pose, ...], samples: NDArray[np.int16], size: tuple[int, int]
) -> TinyClip:
    truth = mouth_track(samples, len(poses))
    pictures = np.empty((len(poses), *size, 3), np.uint8)
    for picture, pose, opening, width in zip(pictures, poses, truth.opening, truth.width, strict=True):
        picture[:] = render(identity, float(opening), float(width), pose, size)
    return TinyClip(
        identity=identity,
        poses=poses,
        frames=pictures,
        samples=samples,
        truth=truth,
        lips=np.array([lip_centre(identity, pose, size) for pose in poses]),
        regions=np.array([mouth_region(identity, pose, size) for pose in poses]),
        points=np.array([points(identity, pose, size) for pose in poses]),
    )


def _fitted(samples: NDArray[np.int16], frames: int) -> NDArray[np.int16]:
    """The samples of `frames` frames, int16 [frames * 640]; silence where there are none."""
    fitted = np.zeros(frames * FRAME_SAMPLES, np.int16)
    kept = samples[: len(fitted)]
    fitted[: len(kept)] = kept
    return fitted


def _drift(t: NDArray[np.float64], most: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A sum of three slow waves over seconds `t`, at most `most` from 0."""
    waves = [np.sin(2 * np.pi * rng.uniform(0.08, 0.45) * t + rng.uniform(0, 2 * np.pi)) for _ in range(3)]
    return np.asarray(most * (0.5 * waves[0] + 0.3 * waves[1] + 0.2 * waves[2]))


def _blinks(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """0 open to 1 shut: a blink each 1.5 to 5 seconds."""
    shut = np.zeros(frames + len(_BLINK))
    at = int(rng.uniform(0.2, 4) * _FPS)
    while at < frames:
        shut[at : at + len(_BLINK)] = _BLINK
        at += int(rng.uniform(1.5, 5) * _FPS)
    return shut[:frames]


def _glances(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """-1..1: the eyes rest for a second or two, then look elsewhere within three frames."""
    looks = np.zeros(frames + 4)
    at = 0
    while at < len(looks):
        looks[at:] = rng.normal(0, 0.35)
        at += int(rng.uniform(0.8, 3) * _FPS)
    return np.asarray(np.clip(np.convolve(looks, np.ones(3) / 3, mode="valid")[:frames], -1, 1))
