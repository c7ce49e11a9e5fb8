"""The frame of the video, and the part of the sound, at each place of the result: numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.footage import FootageOptions
from lsx.errors import UsageError
from lsx.media.audio_reader import MIN_SAMPLES, SAMPLE_RATE

__all__ = ["Timeline"]

_BLOCK = 4096  # places that are looked up at once


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """A run's plan in time."""

    clock: FrameClock
    """The video's."""
    frames: int
    """Output frames."""
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
    def of(cls, options: FootageOptions, video_frames: int, samples: int, clock: FrameClock = MODEL_CLOCK) -> Timeline:
        """The plan for a video of `video_frames` shown by `clock` and a sound of `samples` at 16 kHz.

        Raises UsageError where no frame or no sound is left, and for what needs an even rate.
        """
        first = clock.nearest(options.start, video_frames)
        stop = video_frames if options.end is None else min(clock.nearest(options.end, video_frames), video_frames)
        if stop <= first:
            end, lasts = (float(clock.seconds(frame)) for frame in (stop, video_frames))
            raise UsageError(
                f"no frame lies between start {options.start:g} and end {end:g}; the video lasts {lasts:.2f} s"
            )
        if clock.starts is not None and options.extend == "remap":
            raise UsageError("extend is remap, and the video's frames come unevenly; give a number as fps besides")
        count = stop - first
        offset = Fraction(round(options.audio_offset * SAMPLE_RATE), SAMPLE_RATE)
        heard = samples + int(offset * SAMPLE_RATE)
        if heard < MIN_SAMPLES:
            raise UsageError(
                f"audio_offset is {options.audio_offset:g}, and the sound lasts {samples / SAMPLE_RATE:.2f} s: "
                "less than 20 ms of it are left"
            )
        plan = cls(
            clock=clock,
            frames=count,
            first=first,
            count=count,
            extend=options.extend,
            speed=1.0,
            audio_offset=offset,
            fitted=False,
        )
        sounding = plan._frames_in(Fraction(heard, SAMPLE_RATE))
        frames = _frames(options, count, sounding)
        speed = 1.0
        if options.extend == "remap":
            speed = min(max(count / frames, 1 / options.remap_limit), options.remap_limit)
        return replace(plan, frames=frames, speed=speed, fitted=frames != sounding)

    @classmethod
    def of_video(cls, options: FootageOptions, video_frames: int, clock: FrameClock) -> Timeline:
        """The plan that shows the part of the video once, whatever is heard. Raises UsageError as `of`."""
        samples = round(clock.seconds(video_frames) * SAMPLE_RATE)
        return cls.of(options.model_copy(update={"length": "video"}), video_frames, samples, clock)

    def _frames_in(self, seconds: Fraction) -> int:
        """Output frames until at least `seconds` have passed."""
        if self.clock.starts is None:
            return self.clock.frames_in(seconds)
        lasts = (int(self.clock.ticks(self.first + self.count)) - int(self.clock.ticks(self.first))) * self.clock.tick
        # held, its last frame may last less than the others do; so in whole rounds, and those of the last besides
        shortest = int(np.diff(self.clock.starts)[self.first : self.first + self.count].min()) * self.clock.tick
        enough = int(seconds / (shortest if self.extend == "hold" else lasts / self.count)) + 2 * self.count + 2
        return self.shown(enough).frames_in(seconds)

    def shown(self, length: int | None = None) -> FrameClock:
        """The times at which the first `length` output frames are shown, by default all."""
        return self.clock if self.clock.starts is None else self.clock.shown(self.source(length))

    def first_times(self, beyond: int) -> NDArray[np.int64]:
        """The video's frames that are shown, and those of `beyond` output frames more, each once, rising."""
        return np.unique(self.source(self.frames + beyond))

    @property
    def seconds(self) -> Fraction:
        """How long the result lasts."""
        return self.shown().seconds(self.frames)

    def source(self, length: int | None = None) -> NDArray[np.int64]:
        """The video's frame at each of the first `length` places, by default all: int64 [length].

        The rule goes on beyond the end: a chunk has 16 frames, however short the result.
        """
        return self._at(np.arange(self.frames if length is None else length))

    def sources(self, length: int, first: int = 0) -> Iterator[int]:
        """Like `source`, one by one from place `first` on: a stream may have any length."""
        for start in range(first, length, _BLOCK):
            yield from self._at(np.arange(start, min(start + _BLOCK, length))).tolist()

    def _at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
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
