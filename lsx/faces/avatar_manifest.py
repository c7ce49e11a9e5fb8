"""avatar.json: what a prepared avatar's folder holds, and what it was prepared of."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import Entry, FileEntry
from lsx.core.clock import FrameClock
from lsx.faces.speaker import SpeakerChoice
from lsx.faces.track_file import VideoIdentity
from lsx.media.colours import ColourTags

__all__ = ["AVATAR_SCHEMA", "AvatarManifest", "PlaceEntry", "ProxyEntry", "encoder_of"]

AVATAR_SCHEMA = 1
"""Raised when a field goes or changes its meaning."""


class PlaceEntry(Entry):
    """The faces of one place: one, or more where the rule chose several at once."""

    crops: FileEntry
    """uint8 [rows, resolution, resolution, 3]."""
    moments: FileEntry
    """float32 [rows, 2, 2, 4, latent, latent]: masked and reference face, mean and deviation of each."""


class ProxyEntry(Entry):
    """What the source had that a proxy of its frames has not."""

    tick: Fraction
    """Tick of the frames' clock, seconds."""
    starts: tuple[int, ...] | None
    """First tick of each frame, and of what would come after the last; None is an even rate."""
    pixel_aspect: Fraction
    colours: ColourTags
    has_sound: bool
    """Whether the source had a sound of its own, which a proxy has not."""

    @property
    def clock(self) -> FrameClock:
        """The times at which its frames are shown."""
        return FrameClock(self.tick, None if self.starts is None else np.array(self.starts, np.int64))


class AvatarManifest(Entry):
    """avatar.json."""

    schema_version: int
    lsx_version: str
    created: str
    resolution: int
    """Pixels of a side of an aligned face."""
    encoder: str
    """What the VAE encoder is known by: see `encoder_of`."""
    backend: str
    """The backend that encoded it."""
    video: VideoIdentity
    """What it was prepared of."""
    start: float
    end: float | None
    fps: str
    speaker: str
    """The options of FootageOptions that it was prepared with."""
    frames: int
    """Frames of the part that was prepared."""
    choices: tuple[SpeakerChoice, ...]
    """The faces that the rule took, and the frames from which on it did."""
    source: FileEntry
    """The video, or a proxy of its frames."""
    proxy: ProxyEntry | None
    faces: FileEntry
    """Each place's `frames` int32 [rows], rising, `affines` float64 [rows, 2, 3]; `mask` float32 [latent, latent]."""
    places: tuple[PlaceEntry, ...]

    def files(self) -> Iterator[FileEntry]:
        """All files."""
        yield from (self.source, self.faces)
        for place in self.places:
            yield from (place.crops, place.moments)


def encoder_of(bundle: Bundle) -> str:
    """What a bundle's VAE encoder is known by: the hashes of its graph and weights."""
    return "+".join(file.sha256 for file in bundle.files("vae_encoder"))
