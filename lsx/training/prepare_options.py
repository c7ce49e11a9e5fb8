"""What a data set is prepared from and how, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsx.bundle.bundle import Bundle
from lsx.calibration.clips import ClipOptions
from lsx.core.atomic_files import sha256_of
from lsx.errors import UsageError
from lsx.metrics.weight_files import SYNCNET_FILE
from lsx.training.animated_webp import QUALITIES, Quality

__all__ = ["PrepareOptions"]

_RECIPE = 1
"""Raised when the same video and options make other segments than before."""

_WHERE = ("bundle", "syncnet", "processes", "ray", "samples_per_shard")
"""Fields that change nothing in a segment: where things are, who computes, how segments are packed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """What becomes a segment, how it is stored, and who computes. Raises UsageError."""

    bundle: Path
    """Any bundle: its face detector is used."""
    resolution: int = 256
    """Pixels of a side of a stored face: the model's, 256 or 512."""
    quality: Quality = "lossless"
    """How faces are stored: lossless, or near."""
    min_seconds: float = 5.0
    """Shortest segment."""
    max_seconds: float = 10.0
    """Longest segment; at least twice the shortest."""
    min_face: int = 96
    """Lowest height of the face's box in the video, in pixels, in every frame."""
    max_jump: float = 0.5
    """Furthest that a face may move from one frame to the next, in heights of its box."""
    max_outside: float = 0.1
    """Largest share of an aligned face that may lie outside the picture, in any frame."""
    min_sharpness: float = 4.0
    """Lowest sharpness, the median over frames of the variance of the Laplacian of the grey face."""
    syncnet: Path | None = None
    """Folder with syncnet_v2.model, by which the sound's offset is corrected; None leaves it as it is."""
    min_confidence: float = 3.0
    """Lowest confidence of SyncNet after the correction, where it is given."""
    processes: int | None = None
    """Processes on this machine, default one a core; 1 computes in this process."""
    ray: str | None = None
    """Address of a Ray cluster that computes instead: host:port, or auto for the one of this machine."""
    samples_per_shard: int = 64
    """Segments in one tar file."""

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise UsageError(f"quality is {self.quality}; choose {' or '.join(QUALITIES)}")
        if not 64 <= self.resolution <= 1024 or self.resolution % 8:
            raise UsageError(
                f"resolution is {self.resolution}; give a multiple of 8 in 64..1024 (256 and 512 are usual)"
            )
        if not 0 <= self.max_outside <= 1:
            raise UsageError(f"max_outside is {self.max_outside:g}; give a share in 0..1 (0.1 is usual)")
        if not self.min_sharpness >= 0:
            raise UsageError(f"min_sharpness is {self.min_sharpness:g}; give 0 or more (0 lets every face pass)")
        if self.processes is not None and self.processes < 1:
            raise UsageError(f"processes is {self.processes}; give 1 or more, or leave it out for one a core")
        if self.processes is not None and self.ray is not None:
            raise UsageError(
                "processes and ray are both given; the cluster's cores decide under ray: leave processes out"
            )
        if self.samples_per_shard < 1:
            raise UsageError(f"samples_per_shard is {self.samples_per_shard}; give 1 or more (64 is usual)")
        if self.syncnet is not None and not (self.syncnet / SYNCNET_FILE).is_file():
            raise UsageError(
                f"{self.syncnet / SYNCNET_FILE}: no such file. Give the folder that holds it, or no syncnet"
            )
        self.clips()

    def clips(self) -> ClipOptions:
        """What a segment must be like before its faces are looked at."""
        return ClipOptions(
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
            min_face=self.min_face,
            max_jump=self.max_jump,
        )

    def recipe(self) -> dict[str, Any]:
        """All that decides what a video becomes: two equal recipes make the same segments. Raises BundleError."""
        faces = Bundle.open(self.bundle).manifest.faces
        chosen = {name: value for name, value in asdict(self).items() if name not in _WHERE}
        return chosen | {
            "version": _RECIPE,
            "detector": {"family": faces.family, "source": faces.source},
            "syncnet": None if self.syncnet is None else sha256_of(self.syncnet / SYNCNET_FILE),
        }
