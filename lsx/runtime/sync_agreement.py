"""How well each face's lips go with the video's own sound, by StableSyncNet, where several faces are in one shot."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.clock import FPS, FrameClock
from lsx.core.graph_names import SYNC_GRAPHS
from lsx.core.sync_mel import SYNC_FRAMES, SYNC_SHIFT, SYNC_STRIDE, SyncMel
from lsx.engines.engine import Engine
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions
from lsx.faces.active_speaker import Agreement
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.track_file import Tracks
from lsx.media.given import VideoSource

__all__ = ["SyncJudge", "agreements", "sync_judge"]

_SHIFTS = range(-SYNC_SHIFT, SYNC_SHIFT + 1)


class SyncJudge:
    """StableSyncNet on ONNX Runtime: frames and sound to unit vectors."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._lips, self._sound = (engines[name] for name in SYNC_GRAPHS)
        self.resolution = int(self._lips.inputs["faces"].shape[1])
        """Pixels of the aligned faces that it looks at."""

    def seen(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What 16 aligned faces uint8 [16, R, R, 3] say: float32 [D]."""
        return np.asarray(self._lips.infer({"faces": faces})["seen"][0], np.float32)

    def heard(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the sound of 16 frames says, mel float32 [80, 52]: float32 [D]."""
        return np.asarray(self._sound.infer({"mel": mel[None, None]})["heard"][0], np.float32)


@contextmanager
def sync_judge(bundle: Bundle) -> Iterator[SyncJudge | None]:
    """The bundle's StableSyncNet, loaded for as long as the block lasts; None where it has none."""
    if not set(SYNC_GRAPHS) <= set(bundle.manifest.graphs):
        yield None
        return
    with opened_engines(bundle, "onnxruntime", SYNC_GRAPHS, EngineOptions()) as engines:
        yield SyncJudge(engines)


def agreements(
    tracks: Tracks,
    video: VideoSource,
    samples: NDArray[np.int16] | NDArray[np.float32],
    judge: SyncJudge,
    looked: Callable[[int, int], None] = lambda _, __: None,
) -> dict[int, Agreement]:
    """How far lips and sound agree, by track, on the grid of 25 frames a second from `tracks.first` on.

    Shots with one face alone are not looked at. samples : the video's own sound from `tracks.first` on, 16 kHz.
    looked : called after each frame. Raises MediaError.
    """
    grid = _Grid(tracks, video.clock)
    wanted = grid.with_rivals()
    if not wanted:
        return {}
    sound = _Sound(SyncMel(samples), judge)
    looks: defaultdict[int, _Looks] = defaultdict(lambda: _Looks(judge, sound))
    frames = np.array(sorted({grid.frames[k] for k in wanted}), np.int64)
    at = defaultdict(list)
    for k in wanted:
        at[grid.frames[k]].append(k)
    for done, (number, frame) in enumerate(video.at(frames), 1):
        for tracked in tracks.by_frame.get(number, []):
            for k in at[number]:
                looks[tracked.track].add(k, tracked.face.points, frame)
        looked(done, len(frames))
    return {track: Agreement(tuple(one.starts), tuple(one.margins)) for track, one in looks.items() if one.starts}


class _Grid:
    """Which frame of the video is shown at each 25th of a second."""

    def __init__(self, tracks: Tracks, clock: FrameClock) -> None:
        self._tracks = tracks
        first, last = tracks.first, max(tracks.by_frame, default=tracks.first)
        zero = clock.seconds(first)
        count = round((clock.seconds(last) - zero) * FPS) + 1
        self.frames = [min(clock.nearest(float(zero) + k / FPS, last), last) for k in range(count)]

    def with_rivals(self) -> list[int]:
        """The places of shots in which there are several faces."""
        cuts = np.searchsorted(self.frames, sorted(self._tracks.shots)).tolist()
        wanted: list[int] = []
        for start, stop in pairwise(sorted({0, *cuts, len(self.frames)})):
            there = {t.track for k in range(start, stop) for t in self._tracks.by_frame.get(self.frames[k], [])}
            wanted += range(start, stop) if len(there) > 1 else ()
        return wanted


class _Sound:
    """What the sound says at each place, computed once for all faces; only the latest places are kept."""

    def __init__(self, mel: SyncMel, judge: SyncJudge) -> None:
        self._mel, self._judge = mel, judge
        self._known: dict[int, NDArray[np.float32]] = {}

    def at(self, k: int) -> NDArray[np.float32]:
        """[D] of the 16 frames from place `k` on; before the sound begins, and after it, it is silent."""
        if k not in self._known:
            for old in [other for other in self._known if other < k - 4 * SYNC_FRAMES]:
                del self._known[old]
            self._known[k] = self._judge.heard(self._mel.window(k))
        return self._known[k]


@dataclass(slots=True, eq=False)
class _Looks:
    """One track's faces, looked at 16 at a time."""

    judge: SyncJudge
    sound: _Sound
    starts: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    _faces: deque[NDArray[np.uint8]] = field(default_factory=lambda: deque(maxlen=SYNC_FRAMES))
    _latest: int = -2
    _aligner: Aligner | None = None

    def add(self, k: int, points: NDArray[np.float64], frame: NDArray[np.uint8]) -> None:
        """The face at place `k`, which comes after those before."""
        if self._aligner is None or k != self._latest + 1:
            self._faces.clear()
            self._aligner = Aligner(self.judge.resolution)
        self._latest = k
        self._faces.append(crop_face(frame, self._aligner.affine(points), self.judge.resolution))
        start = k - SYNC_FRAMES + 1
        if len(self._faces) == SYNC_FRAMES and (not self.starts or start >= self.starts[-1] + SYNC_STRIDE):
            seen = self.judge.seen(np.stack(self._faces))
            cosines = [float(self.sound.at(start + shift) @ seen) for shift in _SHIFTS]
            self.starts.append(start)
            self.margins.append(cosines[_SHIFTS.index(0)] - float(np.median(cosines)))
