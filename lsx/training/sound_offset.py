"""The sound that belongs to some frames of a video: cut where they are shown, and shifted as SyncNet says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader
from lsx.media.video_reader import FPS, VideoReader
from lsx.training.tar_shard import SAMPLES_A_FRAME

if TYPE_CHECKING:
    from lsx.metrics.syncnet import SyncFigures, SyncNet

__all__ = ["Offset", "VideoSound", "corrected"]

_REMAINING = 1  # frames that a corrected sound may still seem off: SyncNet is no finer


@dataclass(frozen=True, slots=True, eq=False)
class VideoSound:
    """A video's sound on its grid of frames."""

    samples: NDArray[np.int16]
    lead: int
    """Index of the sample that is heard as the first frame appears; negative where the sound starts later."""

    @classmethod
    def of(cls, video: VideoReader) -> VideoSound:
        """The sound of the same file. Raises MediaError."""
        sound = SoundReader(video.path)
        lead = round((float(video.start) - sound.start()) * SAMPLE_RATE)
        return cls(np.asarray(sound.samples(), dtype=np.int16), lead)

    def under(self, start: int, stop: int, early: int = 0) -> tuple[NDArray[np.int16], float]:
        """Sound of frames start..stop, int16 [640 * frames], and the seconds of it that the video does not have: zeros.

        early : frames by which the video's sound comes too early, which is undone.
        """
        first = self.lead + (start - early) * SAMPLES_A_FRAME
        last = self.lead + (stop - early) * SAMPLES_A_FRAME
        low, high = (int(np.clip(n, 0, len(self.samples))) for n in (first, last))
        padded = np.zeros(last - first, np.int16)
        padded[low - first : high - first] = self.samples[low:high]
        return padded, (last - first - (high - low)) / SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offset:
    """What SyncNet found, and the sound as it is after."""

    samples: NDArray[np.int16]
    missing: float
    """Seconds of the shifted sound that the video does not have."""
    frames: int
    """Frames by which the sound came early."""
    confidence: float
    reason: str | None
    """Why the segment cannot be used."""


def corrected(syncnet: SyncNet, faces: Frame, sound: VideoSound, start: int, min_confidence: float) -> Offset:
    """Ask SyncNet for the offset, shift the sound, and ask again whether it now fits.

    faces : uint8 [n, R, R, 3] of the frames from `start` on.
    """
    stop = start + len(faces)
    samples, missing = sound.under(start, stop)
    first = _judged(syncnet, faces, samples)
    after = first
    if first.offset:
        samples, missing = sound.under(start, stop, first.offset)
        after = _judged(syncnet, faces, samples)
    reason = None
    if not after.confidence >= min_confidence:  # of damaged weights it is NaN
        reason = f"sync confidence {after.confidence:.1f}, under {min_confidence:g}"
    elif first.offset and abs(after.offset) > _REMAINING:
        reason = f"sound {abs(after.offset)} frames off after a shift by {abs(first.offset)}"
    return Offset(
        samples=samples,
        missing=missing,
        frames=first.offset,
        confidence=round(after.confidence, 3),
        reason=reason,
    )


def _judged(syncnet: SyncNet, faces: Frame, samples: NDArray[np.int16]) -> SyncFigures:
    with _one_thread():
        figures = syncnet.judge(faces, samples)
    assert figures is not None, f"{len(faces)} frames: at least a second is judged, {FPS} frames"  # noqa: S101
    return figures


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch on one thread, as in every worker: its sums, and so the figures, depend on the number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
