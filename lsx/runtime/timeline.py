"""Which frame of the video, and which part of the sound, is at each place of the result: numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lsx.core.footage import FootageOptions
from lsx.errors import UsageError
from lsx.media.audio_reader import MIN_SAMPLES, SAMPLE_RATE
from lsx.media.video_reader import FPS

__all__ = ["Timeline"]

_FRAME_SAMPLES = SAMPLE_RATE // FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A run's plan in time."""

    frames: int
    """Output frames, 25 a second."""
    first: int
    """First frame of the part of the video that is used."""
    count: int
    """Frames of that part."""
    extend: str
    speed: float
    """Frames of the video for one of the result; 1 but for `remap`."""
    audio_offset: Fraction
    """Seconds by which the sound comes later."""
    fitted: bool
    """Whether the sound is cut, or filled with silence, to last as long as the frames."""

    @classmethod
    def of(cls, options: FootageOptions, video_frames: int, samples: int) -> Timeline:
        """The plan for a video of `video_frames` at 25 a second and a sound of `samples` at 16 kHz.

        Raises UsageError where no frame or no sound is left.
        """
        first = round(options.start * FPS)
        stop = video_frames if options.end is None else min(round(options.end * FPS), video_frames)
        if stop <= first:
            lasts = f"the video lasts {video_frames / FPS:.2f} s"
            raise UsageError(f"no frame lies between start {options.start:g} and end {stop / FPS:g}; {lasts}")
        count = stop - first
        offset = Fraction(round(options.audio_offset * SAMPLE_RATE), SAMPLE_RATE)
        heard = samples + int(offset * SAMPLE_RATE)
        if heard < MIN_SAMPLES:
            raise UsageError(
                f"audio_offset is {options.audio_offset:g}, and the sound lasts {samples / SAMPLE_RATE:.2f} s: "
                "less than 20 ms of it are left"
            )
        sounding = -(-heard // _FRAME_SAMPLES)
        frames = _frames(options, count, sounding)
        speed = 1.0
        if options.extend == "remap":
            speed = min(max(count / frames, 1 / options.remap_limit), options.remap_limit)
        return cls(
            frames=frames,
            first=first,
            count=count,
            extend=options.extend,
            speed=speed,
            audio_offset=offset,
            fitted=frames != sounding,
        )

    def source(self, length: int | None = None) -> NDArray[np.int64]:
        """The video's frame at each of the first `length` places, by default all: int64 [length].

        The rule goes on beyond the end: a chunk has 16 frames, however short the result.
        """
        places = np.arange(self.frames if length is None else length)
        if self.extend == "loop":
            return self.first + places % self.count
        if self.extend == "hold":
            return self.first + np.minimum(places, self.count - 1)
        if self.speed != 1:
            # the middle of a place rounds to the same frame forwards and backwards in time
            places = np.floor((places + 0.5) * self.speed).astype(np.int64)
        places = places % (2 * self.count)
        return self.first + np.minimum(places, 2 * self.count - 1 - places)

    @property
    def used(self) -> tuple[int, int]:
        """The first frame of the video that the result shows, and the one after the last."""
        source = self.source()
        return int(source.min()), int(source.max()) + 1

    @property
    def is_placed(self) -> bool:
        """Whether the result's sound differs from the sound that was given."""
        return self.fitted or self.audio_offset != 0


def _frames(options: FootageOptions, video: int, sound: int) -> int:
    """Frames of the result, of a video and a sound of that many."""
    length = options.length or ("video" if options.extend == "silence" else "audio")
    frames = {"audio": sound, "video": video, "shortest": min(video, sound), "longest": max(video, sound)}[length]
    if options.extend == "cut_off":
        return min(frames, video, sound)
    return min(frames, video) if options.extend == "silence" else frames
