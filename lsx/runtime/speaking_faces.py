"""A video's faces, all looked at before a run, and which of them speaks in the video's own sound."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import FPS, FrameClock
from lsx.core.threaded_stages import in_order
from lsx.errors import UsageError
from lsx.faces.active_speaker import Agreement, Mouth, active_tracks
from lsx.faces.detector import detector_threads
from lsx.faces.following import FaceFollower
from lsx.faces.speaker import ActiveTrack
from lsx.faces.track_file import Tracks, VideoIdentity
from lsx.faces.tracks import TrackedFace
from lsx.media.audio_reader import SoundReader
from lsx.media.given import VideoSource
from lsx.media.placed_sound import PlacedSound, own_sound
from lsx.runtime.audio_features import SEGMENT, LogMel
from lsx.runtime.silence import speech_share

__all__ = ["Looked", "heard_in", "looked_at", "speaking"]

Looked = Callable[[int, int], None]
"""Called with the frames that were looked at, and all; what it raises ends the work."""

_BANDS = 16  # of the mel spectrogram's 80 lines
_COLUMNS = 100 // FPS  # of the mel spectrogram, for a frame
_NEAR = 0.75  # frames between a time and the nearest one at which a mouth was seen
_FADED = 0.5  # share of speech over which a frame counts
_INSTEAD = "Choose a face by its place, or by its track's number"


def looked_at(video: VideoSource, frames: NDArray[np.int64], follower: FaceFollower, looked: Looked) -> Tracks:
    """The faces of these frames of a video, rising, followed through its shots. Raises MediaError.

    follower : which has seen nothing yet; looked : called after each frame.
    """
    by_frame: defaultdict[int, list[TrackedFace]] = defaultdict(list)
    shots, ids = set(), set()
    threads = detector_threads(follower.every)
    every = in_order(lambda item: (item[0], follower.look(item[1])), video.at(frames), threads)
    for done, (number, seen) in enumerate(every, 1):
        looked(done, len(frames))
        faces, new_shot = follower.follow(seen)
        if new_shot:
            shots.add(number)
        ids |= {tracked.track for tracked in faces}
        by_frame[number] = faces
    identity = VideoIdentity.of(video)
    return Tracks(
        path=Path(identity.name),
        video=identity,
        shots=frozenset(shots),
        by_frame=by_frame,
        ids=frozenset(ids),
        first=int(frames[0]),
    )


def heard_in(video: VideoSource, frame: int) -> PlacedSound:
    """The video's own sound from a frame on. Raises UsageError where it has none."""
    sound = own_sound(video, video.clock.seconds(frame))
    if sound is None:
        name = VideoIdentity.of(video).name
        raise UsageError(f"speaker is active: it listens to the video's own sound, and {name} has none. {_INSTEAD}")
    return sound


def speaking(
    tracks: Tracks, clock: FrameClock, sound: SoundReader, agreements: Mapping[int, Agreement] | None = None
) -> ActiveTrack:
    """The track that speaks in a frame of the video. Raises UsageError where no mouth is known, MediaError.

    clock : the video's; sound : its own, from `tracks.first` on; agreements : as of `active_tracks`.
    """
    first, last = tracks.first, max(tracks.by_frame, default=tracks.first)
    zero = clock.seconds(first)

    def at(frame: int) -> int:
        return round((clock.seconds(frame) - zero) * FPS)

    mouths = _mouths(tracks, clock, zero)
    if tracks.ids and not mouths:
        raise UsageError(
            f"speaker is active: it looks at mouths, and the face models do not say how far they are open. {_INSTEAD}"
        )
    samples, frames = sound.samples(), at(last) + 1
    chosen = active_tracks(
        mouths,
        _bands(samples, frames),
        speech_share(samples, frames) > _FADED,
        sorted({at(shot) for shot in tracks.shots if first < shot <= last}),
        agreements,
    )
    return lambda frame: int(chosen[min(max(at(frame), 0), frames - 1)])


def _mouths(tracks: Tracks, clock: FrameClock, zero: Fraction) -> dict[int, Mouth]:
    """The mouths by track, on the grid of 25 frames a second from `zero` on, those whose opening is known."""
    seen: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for frame, faces in sorted(tracks.by_frame.items()):
        for tracked in faces:
            if tracked.face.mouth_opening is not None and not math.isnan(tracked.face.mouth_opening):
                seen[tracked.track].append((float((clock.seconds(frame) - zero) * FPS), tracked.face.mouth_opening))
    near = _NEAR * max(1.0, float(FPS / clock.rate))
    return {track: _on_grid(np.array(points), near) for track, points in sorted(seen.items())}


def _on_grid(points: NDArray[np.float64], near: float) -> Mouth:
    """points : [n, 2], when it was seen, in frames, rising, and how far it was open; near : frames to the next one."""
    times, openings = points.T
    start = round(float(times[0]))
    grid = np.arange(start, round(float(times[-1])) + 1)
    after = np.clip(np.searchsorted(times, grid), 1, max(len(times) - 1, 1)) if len(times) > 1 else np.zeros(1, int)
    away = np.minimum(np.abs(times[after] - grid), np.abs(times[after - 1] - grid))
    return Mouth(start, np.where(away <= near, np.interp(grid, times, openings), np.nan))


def _bands(samples: NDArray[np.int16] | NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """How loud the sound is in each frame by frequency, in a logarithm: float32 [frames, 16]."""
    mel, width = LogMel(samples), SEGMENT // _COLUMNS
    result = np.zeros((frames, _BANDS), np.float32)
    for start in range(0, frames, width):
        part = mel.segment(start * _COLUMNS).reshape(_BANDS, -1, width, _COLUMNS).mean((1, 3))
        result[start : start + width] = part.T[: frames - start]
    return result
